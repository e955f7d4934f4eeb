"""Rolling an import back: removing what it inserted, restoring what it rewrote, keeping what was edited since."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

import psycopg

from dagster_backfills.domains.kintell.importing.account import ImportJob, load_job
from dagster_backfills.domains.kintell.importing.claims import LEASE_SECONDS, Claim
from dagster_backfills.domains.kintell.importing.importer import passes
from dagster_backfills.domains.kintell.statements import statements

BATCH = 10_000
TRIES = 5


@dataclass(frozen=True)
class Preview:
    """Sessions that a rollback removes, restores and keeps. `kept`: external ids of the first that it keeps."""

    removes: int
    restores: int
    keeps: int
    kept: list[str]


def preview_rollback(conn: psycopg.Connection, job: UUID, listed: int = 100) -> Preview:
    """What a rollback would do now. Changes nothing."""
    load_job(conn, job)
    removes, restores, keeps = statements().rollback_preview(conn, job=job)
    kept = [row[0] for row in statements().kept_sessions(conn, job=job, most=listed)]
    return Preview(removes, restores, keeps, kept)


def roll_back(
    url: str,
    job: UUID,
    *,
    run_id: str | None = None,
    lease: float = LEASE_SECONDS,
    on_progress: Callable[[int, int], None] = lambda removed, restored: None,
) -> ImportJob:
    """Roll an import back in batches, each one transaction. One that was interrupted goes on where it stopped."""
    with Claim(url, job, "rollback", run_id=run_id, lease=lease) as claim:
        tries = 0
        while True:
            try:
                with claim.connect() as conn:
                    _roll_back(conn, claim, on_progress)
                    return load_job(conn, job)
            except psycopg.Error as error:
                tries += 1
                if tries == TRIES or not passes(error):
                    raise
                time.sleep(tries)


def _roll_back(conn: psycopg.Connection, claim: Claim, on_progress: Callable[[int, int], None]) -> None:
    sql, job = statements(), claim.job
    for ids in _in_batches(conn, job, "inserted"):
        with conn.transaction():
            upto = sql.hold_publisher(conn)
            position = sql.next_event_position(conn)
            removed = sql.remove_sessions(conn, job=job, ids=ids, sending_upto=upto, position=position)
            _account(conn, claim, removed=removed)
        on_progress(removed, 0)
    for ids in _in_batches(conn, job, "rewritten"):
        with conn.transaction():
            restored = sql.restore_sessions(conn, job=job, ids=ids)
            _account(conn, claim, restored=restored)
        on_progress(0, restored)
    keeps = preview_rollback(conn, job, 0).keeps
    if not sql.finish_rollback(conn, job=job, attempt=claim.attempt, kept=keeps):
        raise claim.lost(conn)


def _in_batches(conn: psycopg.Connection, job: UUID, was: str) -> Iterator[list[UUID]]:
    """The ids. They are asked for once: a cursor that is held keeps them past the batches' transactions."""
    with conn.cursor(name="sessions_to_roll_back", withhold=True) as cursor:
        cursor.execute(statements().sessions_to_roll_back.sql, {"job": job, "was": was})
        while ids := [row[0] for row in cursor.fetchmany(BATCH)]:
            yield ids


def _account(conn: psycopg.Connection, claim: Claim, *, removed: int = 0, restored: int = 0) -> None:
    counts = {"removed": removed, "restored": restored}
    if statements().account_rollback(conn, job=claim.job, attempt=claim.attempt, **counts) is None:
        raise claim.lost(conn)
