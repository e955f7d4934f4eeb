"""Replays a job's rejected rows from the database, after their cause was fixed. The file is not needed."""

from dataclasses import dataclass
from uuid import UUID

import psycopg

from dagster_backfills.domains.kintell.file.reader import Block
from dagster_backfills.domains.kintell.importing.claims import Claim
from dagster_backfills.domains.kintell.importing.jobs import ImportJob, load_job
from dagster_backfills.domains.kintell.importing.writer import ImportRules, store_sessions
from dagster_backfills.domains.kintell.rows.batches import Batch, prepare
from dagster_backfills.domains.kintell.rows.seen import SettledIds
from dagster_backfills.domains.kintell.rows.users import Users
from dagster_backfills.domains.kintell.statements import STATEMENTS

BATCH = 5_000


@dataclass(frozen=True)
class ReplayResult:
    """`tried` rejected rows. `imported` of them were inserted, updated, or skipped as duplicates."""

    tried: int
    imported: int
    job: ImportJob


def replay(
    url: str,
    job: UUID,
    *,
    create_missing_users: bool = False,
    run_id: str | None = None,
) -> ReplayResult:
    """Validate the open rejected rows again and import those that are good now. Each batch is one transaction, and an
    imported row is no longer open, so an interrupted replay can simply be started again."""
    with Claim(url, job, "replay", run_id=run_id) as claim, claim.connect() as conn:
        replayed = load_job(conn, job)
        rules = ImportRules(replayed.on_duplicate, frozenset(replayed.header.positions), is_replay=True)
        users = Users(conn)
        STATEMENTS.create_stage(conn)
        tried = imported = after = 0
        while True:
            rows = list(STATEMENTS.open_errors(conn, job=job, after_row=after, most=BATCH))
            if not rows:
                return ReplayResult(tried, imported, load_job(conn, job))
            batch = _batch(conn, replayed, rows, users, create_missing_users)
            imported += _write(conn, claim, batch, rules)
            tried += len(rows)
            after = rows[-1][0]


def _batch(
    conn: psycopg.Connection,
    job: ImportJob,
    rows: list[tuple[int, list[str], str]],
    users: Users,
    create_missing_users: bool,
) -> Batch:
    numbers, values = [number for number, _, _ in rows], [value for _, fields, _ in rows for value in fields]
    block = Block(job.header, numbers, values, first_row=numbers[0], last_row=numbers[-1])
    return prepare(
        block,
        users,
        SettledIds(conn, job.id, 0),
        create_missing_users=create_missing_users,
        position=STATEMENTS.next_event_position(conn),
    )


def _write(conn: psycopg.Connection, claim: Claim, batch: Batch, rules: ImportRules) -> int:
    with conn.transaction():
        result = store_sessions(conn, claim.job, batch, rules, isolate=True)
        rejects = {reject.row_number: reject.message for reject in [*batch.rejects, *result.refused]}
        good = [number for number in batch.sessions["row_number"].to_list() if number not in rejects]
        STATEMENTS.resolve_errors(conn, job=claim.job, rows=good)
        STATEMENTS.reword_errors(conn, job=claim.job, rows=list(rejects), messages=list(rejects.values()))
        result.failed = len(rejects)
        span = {"first_row": batch.block.first_row, "last_row": batch.block.last_row}
        if not STATEMENTS.account_replay(conn, job=claim.job, attempt=claim.attempt, **span, **result.counts):
            raise claim.lost(conn)
    return len(good)
