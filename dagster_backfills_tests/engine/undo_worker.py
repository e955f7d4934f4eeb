"""Undoes a run in a separate process, for tests that kill it: `python -m … URL RUN_ID NAME ROOT`."""

import sys

from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.runner import Runner
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.undo import find, undo
from dagster_backfills_tests.engine.running import opened


def main() -> None:
    url, run_id, name, root = sys.argv[1:]
    with opened(url) as conn:
        undoing = find(conn, run_id)
    print("ready", flush=True)  # noqa: T201
    identity = RunIdentity(name, root_run_id=root, resumes=True)
    runner = Runner(lambda: opened(url), identity, EngineSettings(target_seconds=0, batch_units=10))
    for _ in undo(runner, undoing):
        pass
    print("done", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
