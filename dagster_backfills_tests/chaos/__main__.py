"""`make chaos`: runs a storm per fault and prints a table of faults × domains. Exits with 1 if anything is broken.

python -m dagster_backfills_tests.chaos [FAULT …] [--seed N] [--seconds S]
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from itertools import groupby
from pathlib import Path

from dagster_backfills_tests.chaos.domains import CHECKS
from dagster_backfills_tests.chaos.faults import FAULTS, Fault
from dagster_backfills_tests.chaos.storm import Ground, Report, Size, say, storm


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dagster_backfills_tests.chaos")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=", ".join(f.name for f in FAULTS))
    parser.add_argument("--seed", type=int, default=20240229)
    parser.add_argument("--seconds", type=float, default=Size.seconds, help="how long each storm is")
    parser.add_argument("--patience", type=float, default=Size.patience, help="seconds to get well in")
    parser.add_argument(
        "--by-kind", action="store_true", help="one storm for all faults of a kind: half the time"
    )
    parser.add_argument("--together", action="store_true", help="one storm for all faults")
    options = parser.parse_args()
    by_name = {fault.name: fault for fault in FAULTS}
    chosen = [by_name[name] for name in options.faults or by_name]
    groups = [[fault] for fault in chosen]
    if options.by_kind:
        groups = [list(group) for _, group in groupby(chosen, key=lambda fault: fault.kind)]
    if options.together:
        groups = [chosen]
    reports: list[tuple[list[Fault], Report | str]] = []
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="backfills_chaos_"))
    ground = Ground.prepare(folder)
    try:
        for number, faults in enumerate(groups):
            reason = "; ".join(filter(None, {fault.impossible(ground.postgres) for fault in faults}))
            if reason:
                reports.append((faults, reason))
                continue
            say(f"storm: {_names(faults)}")
            size = Size(seconds=options.seconds, patience=options.patience)
            report = storm(ground, faults, options.seed + number, size)
            say(f"  {_ending(report)}  {dict(report.strikes)}  {report.work}  {report.restarts}")
            for name, what in [*report.waited_for.items(), *report.broken.items()]:
                say(f"  {name}: {'; '.join(what)}")
            reports.append((faults, report))
    finally:
        ground.delete()
    sys.stdout.write(f"{table(reports)}\n")
    broken = sum(bool(report.broken) for _, report in reports if isinstance(report, Report))
    if broken:
        say(f"the processes' logs are in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    figures = {"storms": len(reports), "broken": broken, "seed": options.seed}
    sys.stdout.write(json.dumps(figures | {"seconds": round(time.monotonic() - began)}) + "\n")
    return 1 if broken else 0


def table(reports: list[tuple[list[Fault], Report | str]]) -> str:
    """Returns Markdown with one row per storm and one column per domain."""
    head = ["fault", *CHECKS, "recovered"]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    for faults, report in reports:
        if isinstance(report, str):
            cells = [_names(faults), *("–" for _ in CHECKS), f"not done: {report}"]
        else:
            strikes = "; ".join(f"{report.strikes[fault.name]} × {fault.what}" for fault in faults)
            cells = [strikes, *(_state(report, name) for name in CHECKS), _ending(report)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _names(faults: list[Fault]) -> str:
    return "; ".join(fault.what for fault in faults)


def _state(report: Report, name: str) -> str:
    if name in report.broken:
        return f"broken: {'; '.join(report.broken[name])}"
    return report.work[name]


def _ending(report: Report) -> str:
    if report.broken:
        return f"no: {', '.join(report.broken)}"
    if report.by_itself is not None:
        return f"automatically, {report.by_itself:.0f} s"
    return "by command: " + ", ".join(sorted({" ".join(c.split()[:2]) for c in report.commands}))


if __name__ == "__main__":
    sys.exit(main())
