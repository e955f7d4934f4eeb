"""Compares `dagster definitions validate` on this project with an empty project of the same structure.

The empty project has a `defs` folder without definitions. Times are CPU seconds of all processes that the command
starts, because these vary less than elapsed time. Prints a table, then one JSON object.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_EMPTY = {
    "pyproject.toml": '[project]\nname = "empty"\nversion = "0"\n[tool.dg]\ndirectory_type = "project"\n'
    '[tool.dg.project]\nroot_module = "empty"\n',
    "empty/__init__.py": "",
    "empty/defs/__init__.py": "",
    "empty/definitions.py": "from pathlib import Path\n\nimport dagster as dg\n\n\n@dg.definitions\ndef defs():\n"
    "    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)\n",
}


def _cpu_seconds(project: Path, module: str, home: Path) -> float:
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-m", module]
    # Dagster uses its file storage here, so that starting a database is not measured.
    environment = {**os.environ, "DAGSTER_HOME": str(home), "PYTHONPATH": str(project)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{module} is not valid:\n{done.stderr[-3000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validate", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args(arguments).rounds
    with tempfile.TemporaryDirectory(prefix="bench-validate-") as folder:
        empty, home = Path(folder) / "project", Path(folder) / "home"
        home.mkdir()
        for name, text in _EMPTY.items():
            path = empty / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(rounds):
            theirs.append(_cpu_seconds(empty, "empty.definitions", home))
            ours.append(_cpu_seconds(ROOT, "dagster_backfills.definitions", home))
    figures = {
        "seconds_empty": statistics.median(theirs),
        "seconds": statistics.median(ours),
        "ratio_to_empty": statistics.median(ours) / statistics.median(theirs),
    }
    figures = {name: round(value, 3) for name, value in figures.items()}
    for name, value in figures.items():
        print(f"{name:<20}{value:>10}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
