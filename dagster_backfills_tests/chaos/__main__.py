"""`make chaos`: a storm for each fault, and the table faults × domains. Ends with 1 if anything did not hold.

python -m dagster_backfills_tests.chaos [FAULT …] [--seed N] [--seconds S]
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from dagster_backfills_tests.chaos.domains import CHECKS
from dagster_backfills_tests.chaos.faults import FAULTS, Fault
from dagster_backfills_tests.chaos.storm import Ground, Report, Size, say, storm


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dagster_backfills_tests.chaos")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=", ".join(f.name for f in FAULTS))
    parser.add_argument("--seed", type=int, default=20240229)
    parser.add_argument("--seconds", type=float, default=Size.seconds)
    parser.add_argument("--patience", type=float, default=Size.patience)
    parser.add_argument("--keep", action="store_true", help="keep the logs of a storm that broke something")
    options = parser.parse_args()
    chosen = [fault for fault in FAULTS if not options.faults or fault.name in options.faults]
    reports: list[tuple[Fault, Report | str]] = []
    folder = Path(tempfile.mkdtemp(prefix="backfills_chaos_"))
    ground = Ground.prepare(folder)
    try:
        for number, fault in enumerate(chosen):
            reason = fault.impossible(ground.postgres)
            if reason:
                reports.append((fault, reason))
                continue
            say(f"storm: {fault.what}")
            report = storm(
                ground,
                [fault],
                options.seed + number,
                Size(seconds=options.seconds, patience=options.patience),
            )
            say(f"  {_ending(report)}  {report.work}  {report.restarts}")
            for name, what in (report.waited_for | report.broken).items():
                say(f"  {name}: {'; '.join(what)}")
            reports.append((fault, report))
    finally:
        ground.delete()
    print(table(reports))
    broken = sum(bool(report.broken) for _, report in reports if isinstance(report, Report))
    print(json.dumps({"storms": len(reports), "broken": broken, "seed": options.seed}))
    return 1 if broken else 0


def table(reports: list[tuple[Fault, Report | str]]) -> str:
    """Markdown: a row a fault, a column a domain."""
    head = ["fault", "strikes", *CHECKS, "whole again"]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    for fault, report in reports:
        if isinstance(report, str):
            cells = [fault.what, "–", *("–" for _ in CHECKS), f"not done: {report}"]
        else:
            strikes = sum(report.strikes.values())
            states = [_state(report, name) for name in CHECKS]
            cells = [fault.what, str(strikes), *states, _ending(report)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _state(report: Report, name: str) -> str:
    if name in report.broken:
        return f"broken: {'; '.join(report.broken[name])}"
    return report.work[name]


def _ending(report: Report) -> str:
    if report.broken:
        return f"no: {', '.join(report.broken)}"
    if report.by_itself is not None:
        return f"by itself, {report.by_itself:.0f} s"
    return "by command: " + ", ".join(sorted({" ".join(c.split()[:2]) for c in report.commands}))


if __name__ == "__main__":
    sys.exit(main())
