"""Helpers that undo runs and plan undos in the test database of `running`."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import psycopg

from dagster_backfills.engine.outcome import Outcome
from dagster_backfills.engine.plan import Report
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.runner import Runner
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.undo import find, preview, undo
from dagster_backfills_tests.engine.running import opened


def undone(url: str, run_id: str, partitions: Sequence[str] = (), name: str = "", **settings: Any) -> Outcome:
    """Undoes a run. name: the undo's own run ID."""
    with opened(url) as conn:
        undoing = find(conn, run_id, partitions)
    engine = EngineSettings(**{"target_seconds": 0, **settings})
    runner = Runner(lambda: opened(url), RunIdentity(name or str(uuid4()), resumes=True), engine)
    for _ in undo(runner, undoing):
        pass
    return runner.outcome


def previewed(url: str, run_id: str, partitions: Sequence[str] = (), **settings: Any) -> Report:
    """Returns the report of an undo that is rolled back."""
    with opened(url) as conn:
        undoing = find(conn, run_id, partitions)
    return preview(lambda: opened(url), undoing, EngineSettings(**{"target_seconds": 0, **settings}))


def tables(conn: psycopg.Connection[Any]) -> tuple[list[Any], list[Any]]:
    """The rows of both tables."""
    return (
        conn.execute("select * from t.units order by unit").fetchall(),
        conn.execute("select * from t.parts order by part").fetchall(),
    )
