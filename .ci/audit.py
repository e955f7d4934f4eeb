"""Checks the packages in the lock files for known vulnerabilities, with pip-audit and OSV's advisories.

Exit codes: 0: none known. 1: some known, which are printed. 3: the advisories could not be queried.
"""

import json
import subprocess
import sys
from pathlib import Path


def audit(lock_files: list[str], options: list[str]) -> int:
    requirements = [part for name in lock_files for part in ("-r", name)]
    command = [
        str(Path(sys.executable).with_name("pip-audit")),
        "--progress-spinner",
        "off",
        "--format",
        "json",
    ]
    # The lock files are complete and contain hashes, so nothing is resolved or downloaded.
    command += [
        "--disable-pip",
        "--require-hashes",
        "--vulnerability-service",
        "osv",
        *options,
        *requirements,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return _say(3, f"Not audited: the advisory service could not be reached ({last}).")
    skipped = [each for each in packages if "skip_reason" in each]
    for each in packages:
        for advisory in each.get("vulns", []):
            fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
            _say(1, f"{each['name']} {each['version']}: {advisory['id']}, fixed in {fixed}")
    if any(each.get("vulns") for each in packages):
        return 1
    if skipped or not packages:
        return _say(3, f"Not audited: {len(skipped)} of {len(packages)} packages, {skipped[:1]}.")
    return _say(0, f"{len(packages)} packages audited; no known vulnerabilities.")


def _say(code: int, text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return code


if __name__ == "__main__":
    files = [argument for argument in sys.argv[1:] if argument.endswith(".lock")]
    sys.exit(audit(files, [argument for argument in sys.argv[1:] if argument not in files]))
