"""Rolls an import back: removes sessions it inserted, restores sessions it updated, keeps sessions edited since."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

import psycopg

from dagster_backfills.domains.kintell.importing.claims import Claim
from dagster_backfills.domains.kintell.importing.importer import retry_transient
from dagster_backfills.domains.kintell.importing.jobs import ImportJob, load_job
from dagster_backfills.domains.kintell.statements import STATEMENTS

BATCH = 10_000


@dataclass(frozen=True)
class RollbackPreview:
    """The sessions that a rollback removes, restores and keeps. `kept` lists the external IDs of the first it keeps."""

    removes: int
    restores: int
    keeps: int
    kept: list[str]


def preview_rollback(conn: psycopg.Connection, job: UUID, listed: int = 100) -> RollbackPreview:
    """Count what a rollback would do now. Changes nothing."""
    load_job(conn, job)
    removes, restores, keeps = STATEMENTS.rollback_preview(conn, job=job)
    kept = [row[0] for row in STATEMENTS.kept_sessions(conn, job=job, most=listed)]
    return RollbackPreview(removes, restores, keeps, kept)


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
    for ids in _in_batches(conn, job, "inserted"):
        with conn.transaction():
            sending_upto = STATEMENTS.hold_publisher(conn)
            position = STATEMENTS.next_event_position(conn)
            removed = STATEMENTS.remove_sessions(
                conn, job=job, ids=ids, sending_upto=sending_upto, position=position
            )
            _account(conn, claim, removed=removed)
        yield removed, 0
    for ids in _in_batches(conn, job, "rewritten"):
        with conn.transaction():
            restored = STATEMENTS.restore_sessions(conn, job=job, ids=ids)
            _account(conn, claim, restored=restored)
        yield 0, restored
    keeps = preview_rollback(conn, job, 0).keeps
    if not STATEMENTS.finish_rollback(conn, job=job, attempt=claim.attempt, kept=keeps):
        raise claim.lost(conn)


def _in_batches(conn: psycopg.Connection, job: UUID, was: str) -> Iterator[list[UUID]]:
    """Batches of session IDs from one query: a cursor WITH HOLD outlives the transactions of the batches."""
    with conn.cursor(name="sessions_to_roll_back", withhold=True) as cursor:
        cursor.execute(STATEMENTS.sessions_to_roll_back.sql, {"job": job, "was": was})
        while ids := [row[0] for row in cursor.fetchmany(BATCH)]:
            yield ids


def _account(conn: psycopg.Connection, claim: Claim, *, removed: int = 0, restored: int = 0) -> None:
    counts = {"removed": removed, "restored": restored}
    if STATEMENTS.account_rollback(conn, job=claim.job, attempt=claim.attempt, **counts) is None:
        raise claim.lost(conn)
