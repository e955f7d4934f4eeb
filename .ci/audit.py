"""Known vulnerabilities of what the lock files name, by pip-audit and OSV's advisories.

Ends with 0: none known. 1: some, which are printed. 3: the advisories could not be asked, which says nothing.
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
    # The lock files name everything there is, with hashes: nothing is resolved, nothing downloaded.
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
        return _say(3, f"Not audited: the advisory service could not be asked ({last}).")
    skipped = [each for each in packages if "skip_reason" in each]
    for each in packages:
        for found in each.get("vulns", []):
            fixed = ", ".join(found["fix_versions"]) or "no version yet"
            _say(1, f"{each['name']} {each['version']}: {found['id']}, mended in {fixed}")
    if any(each.get("vulns") for each in packages):
        return 1
    if skipped or not packages:
        return _say(3, f"Not audited: {len(skipped)} of {len(packages)} packages, {skipped[:1]}.")
    return _say(0, f"{len(packages)} packages audited; no vulnerability is known.")


def _say(code: int, text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return code


if __name__ == "__main__":
    files = [argument for argument in sys.argv[1:] if argument.endswith(".lock")]
    sys.exit(audit(files, [argument for argument in sys.argv[1:] if argument not in files]))
