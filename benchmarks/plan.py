"""Compares a plan with the run that it predicts: progress statistics of every cohort, first empty, then complete.

The engine executes the same statements in this process, alternately rolled back and committed. Prints a table with the
errors of the estimates, then one JSON object.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from benchmarks.progress import BENCHMARK, STATEMENTS, Bench
from dagster_backfills.components.planning import plan_backfill
from dagster_backfills.defs.progress.declared import PROGRESS
from dagster_backfills.engine.plan import Report
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.runner import Runner
from dagster_backfills.engine.selection import Which


class Rehearsals:
    """Plans and runs of the backfill in one database."""

    def __init__(self, url: str) -> None:
        self.url = url

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self.url, options="-c timezone=UTC") as conn:
            yield conn

    def plan(self) -> tuple[Report, float]:
        began = time.monotonic()
        report = plan_backfill(PROGRESS, self.connect, Which.all)
        return report, time.monotonic() - began

    def run(self) -> tuple[dict[str, Any], float]:
        """Run all cohorts. Returns the counts, and the seconds."""
        began = time.monotonic()
        with self.connect() as conn:
            keys = list(PROGRESS.selection().choose(conn, Which.all))
            writes = [part.write for part in PROGRESS.parts(conn, keys)]
        runner = Runner(self.connect, RunIdentity(str(uuid4())))
        for _ in runner.run(writes, keys):
            pass
        return runner.outcome.counts, time.monotonic() - began


def compare(owner: str, rehearsals: Rehearsals, rounds: int) -> dict[str, float]:
    """Measure plans and runs; the best of each counts. The plan's counts must equal the run's."""
    plans, runs, again_plans, again_runs, errors = [], [], [], [], []
    with psycopg.connect(owner, autocommit=True) as conn:
        for number in range(1, rounds + 1):
            conn.execute(STATEMENTS["empty"].replace(", backfill.runs cascade", ""))
            conn.execute("vacuum progress.user_progress_stats, progress.cohort_stats, backfill.journal")
            for plan_seconds, run_seconds in ((plans, runs), (again_plans, again_runs)):
                report, seconds = rehearsals.plan()
                plan_seconds.append(seconds)
                counts, seconds = rehearsals.run()
                run_seconds.append(seconds)
                if report.counts != counts:
                    raise SystemExit("The plan and the run differ.")
                if report.estimate.runs:
                    errors.append(report.estimate.seconds / seconds - 1)
                print(
                    f"round {number}: plan {plan_seconds[-1]:.1f} s, run {seconds:.1f} s, "
                    f"estimated {report.estimate.seconds:.1f} s "
                    f"({report.estimate.low:.1f} to {report.estimate.high:.1f})",
                    flush=True,
                )
    return {
        "seconds_plan": min(plans),
        "seconds_run": min(runs),
        "ratio_plan_to_run": min(plans) / min(runs),
        "ratio_unchanged": min(again_plans) / min(again_runs),
        "estimate_error": sum(map(abs, errors)) / len(errors) if errors else 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--cohorts", type=int, default=BENCHMARK.cohorts)
    parser.add_argument("--users", type=int, default=BENCHMARK.users)
    parser.add_argument("--progress", type=int, default=BENCHMARK.progress)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    size = replace(BENCHMARK, cohorts=options.cohorts, users=options.users, progress=options.progress)
    root = Path(tempfile.mkdtemp(prefix="bench-plan-"))
    root.chmod(0o755)  # the server may have to run as another user
    bench = Bench(root)
    try:
        bench.prepare()
        owner = bench.load(size)
        figures = compare(owner, Rehearsals(bench.writer), options.rounds)
    finally:
        bench.server.delete()
        shutil.rmtree(root, ignore_errors=True)
    figures = {name: round(value, 3) for name, value in figures.items()}
    for name, value in figures.items():
        print(f"{name:<20}{value:>12}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
