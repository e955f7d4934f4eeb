"""Rolling an import back: removing what it inserted, restoring what it rewrote, keeping what was edited since."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import psycopg

from dagster_backfills.defs.kintell.account import Job, load_job
from dagster_backfills.defs.kintell.claims import LEASE_SECONDS, Claim, ClaimLost
from dagster_backfills.defs.kintell.importer import PASSING
from dagster_backfills.defs.kintell.statements import statements

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
    removes, restores, keeps_inserted, keeps_updated = statements().rollback_preview(conn, job=job)
    kept = [row[0] for row in statements().kept_sessions(conn, job=job, most=listed)]
    return Preview(removes, restores, keeps_inserted + keeps_updated, kept)


def roll_back(
    url: str,
    job: UUID,
    *,
    run_id: str | None = None,
    lease: float = LEASE_SECONDS,
    on_progress: Callable[[int, int], None] = lambda removed, restored: None,
) -> Job:
    """Undo an import in batches, each of them one transaction. One that was interrupted goes on where it stopped."""
    with Claim(url, job, "rollback", run_id=run_id, lease=lease) as claim:
        tries = 0
        while True:
            try:
                with claim.connect() as conn:
                    _undo(conn, claim, on_progress)
                    return load_job(conn, job)
            except PASSING:
                tries += 1
                if tries == TRIES:
                    raise
                time.sleep(tries)


def _undo(conn: psycopg.Connection, claim: Claim, on_progress: Callable[[int, int], None]) -> None:
    sql, job = statements(), claim.job
    while True:
        with conn.transaction():
            upto = sql.hold_publisher(conn)
            position = sql.next_event_position(conn)
            removed, _, _ = sql.remove_sessions(
                conn, job=job, most=BATCH, sending_upto=upto, position=position
            )
            restored = sql.restore_sessions(conn, job=job, most=BATCH)
            if (
                sql.account_rollback(conn, job=job, attempt=claim.attempt, removed=removed, restored=restored)
                is None
            ):
                raise claim.why_lost(conn) or ClaimLost(f"job {job} is no longer held", "lost")
        on_progress(removed, restored)
        if not removed and not restored:
            break
    keeps = preview_rollback(conn, job, 0).keeps
    if not sql.finish_rollback(conn, job=job, attempt=claim.attempt, kept=keeps):
        raise claim.why_lost(conn) or ClaimLost(f"job {job} is no longer held", "lost")
