"""Rolls an import back: removes sessions it inserted, restores sessions it updated, keeps sessions edited since."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

import psycopg

from dagster_backfills.domains.kintell.importing.claims import Claim
from dagster_backfills.domains.kintell.importing.jobs import ImportJob, load_job
from dagster_backfills.domains.kintell.importing.retries import retry_transient
from dagster_backfills.domains.kintell.statements import STATEMENTS

BATCH = 10_000


@dataclass(frozen=True)
class RollbackPreview:
    """The sessions that a rollback removes, restores and keeps. `kept` has the external IDs of the first hundred."""

    removes: int
    restores: int
    keeps: int
    kept: list[str]

    def __str__(self) -> str:
        return f"{self.removes:,} sessions to remove, {self.restores:,} to restore, {self.keeps:,} to keep"


def preview_rollback(conn: psycopg.Connection, job: UUID) -> RollbackPreview:
    """Count what a rollback would do now. Changes nothing."""
    return RollbackPreview(*STATEMENTS.rollback_preview(conn, job=job))


def roll_back(
    url: str,
    job: UUID,
    *,
    run_id: str | None = None,
    on_progress: Callable[[int, int], None] = lambda removed, restored: None,
) -> ImportJob:
    """Roll an import back in batches of one transaction each. An interrupted rollback continues where it stopped."""
    done = 0
    with Claim(url, job, "rollback", run_id=run_id) as claim:

        def continue_rollback() -> ImportJob:
            nonlocal done
            with claim.connect() as conn:
                for removed, restored in _roll_back(conn, claim):
                    done += removed + restored
                    on_progress(removed, restored)
                return load_job(conn, job)

        return retry_transient(continue_rollback, lambda: done)


def _roll_back(conn: psycopg.Connection, claim: Claim) -> Iterator[tuple[int, int]]:
    """Roll back the remaining sessions. Yields the number removed and restored by each batch."""
    job = claim.job
    for was in ("inserted", "rewritten"):
        for ids in _in_batches(conn, job, was):
            with conn.transaction():
                removed = _remove(conn, job, ids) if was == "inserted" else 0
                restored = STATEMENTS.restore_sessions(conn, job=job, ids=ids) if was == "rewritten" else 0
                counts = {"removed": removed, "restored": restored}
                if not STATEMENTS.account_rollback(conn, job=job, attempt=claim.attempt, **counts):
                    raise claim.lost(conn)
            yield removed, restored
    keeps = preview_rollback(conn, job).keeps
    if not STATEMENTS.finish_rollback(conn, job=job, attempt=claim.attempt, kept=keeps):
        raise claim.lost(conn)


def _in_batches(conn: psycopg.Connection, job: UUID, was: str) -> Iterator[list[UUID]]:
    """Batches of session IDs from one query: a cursor WITH HOLD outlives the transactions of the batches."""
    with conn.cursor(name="sessions_to_roll_back", withhold=True) as cursor:
        cursor.execute(STATEMENTS.sessions_to_roll_back.sql, {"job": job, "was": was})
        while ids := [row[0] for row in cursor.fetchmany(BATCH)]:
            yield ids


def _remove(conn: psycopg.Connection, job: UUID, ids: list[UUID]) -> int:
    binds = {
        "sending_upto": STATEMENTS.hold_publisher(conn),
        "position": STATEMENTS.next_event_position(conn),
    }
    removed: int = STATEMENTS.remove_sessions(conn, job=job, ids=ids, **binds)
    return removed
