"""Runs the engine in a separate process, for tests that kill it: `python -m … URL RUN_ID ROOT KEY…`."""

import sys

from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills_tests.engine.running import by_unit, run, totals


def main() -> None:
    url, run_id, root, *keys = sys.argv[1:]
    print("ready", flush=True)  # noqa: T201
    run(url, [by_unit, totals], keys, RunIdentity(run_id, "step", root, resumes=True), batch_units=10)
    print("done", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
