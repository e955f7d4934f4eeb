"""Replays a job's rejected rows from the database, after their cause was fixed. The file is not needed."""

from dataclasses import dataclass
from uuid import UUID

import psycopg

from dagster_backfills.domains.kintell.file.reader import Block
from dagster_backfills.domains.kintell.importing.claims import Claim
from dagster_backfills.domains.kintell.importing.jobs import ImportJob, load_job
from dagster_backfills.domains.kintell.importing.retries import retry_transient
from dagster_backfills.domains.kintell.importing.writer import store_sessions
from dagster_backfills.domains.kintell.rows.batches import Batch, prepare
from dagster_backfills.domains.kintell.rows.messages import Reject
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
    with Claim(url, job, "replay", run_id=run_id) as claim:
        work = _Replay(claim, create_missing_users)
        retry_transient(work.run, lambda: work.after)
        with claim.connect() as conn:
            return ReplayResult(work.tried, work.imported, load_job(conn, job))


@dataclass
class _Replay:
    """`after`: the last row that was tried."""

    claim: Claim
    create_missing_users: bool
    tried: int = 0
    imported: int = 0
    after: int = 0

    def run(self) -> None:
        """Try the rows after `after`."""
        with self.claim.connect() as conn:
            job, users = load_job(conn, self.claim.job), Users(conn)
            STATEMENTS.create_stage(conn)
            while errors := STATEMENTS.errors(conn, job=job.id, after=self.after, most=BATCH):
                rows = [row for row in map(Reject._make, errors) if row.replayable]
                if rows:
                    self.imported += self.write(conn, job, self.batch(conn, job, rows, users))
                self.tried += len(rows)
                self.after = errors[-1][0]

    def batch(self, conn: psycopg.Connection, job: ImportJob, rows: list[Reject], users: Users) -> Batch:
        numbers, values = [row.row_number for row in rows], [value for row in rows for value in row.values]
        return prepare(
            Block(job.header, numbers, values, first_row=numbers[0], last_row=numbers[-1]),
            users,
            SettledIds(conn, job.id, 0),
            create_missing_users=self.create_missing_users,
            position=STATEMENTS.next_event_position(conn),
        )

    def write(self, conn: psycopg.Connection, job: ImportJob, batch: Batch) -> int:
        """Write the batch and return the number of rows that are no longer rejected."""
        with conn.transaction():
            result = store_sessions(conn, job, batch, isolate=True, is_replay=True)
            rejects = {reject.row_number: reject.message for reject in [*batch.rejects, *result.refused]}
            good = [number for number in batch.sessions["row_number"].to_list() if number not in rejects]
            STATEMENTS.resolve_errors(conn, job=job.id, rows=good)
            STATEMENTS.reword_errors(conn, job=job.id, rows=list(rejects), messages=list(rejects.values()))
            result.failed = len(rejects)
            span = {"first_row": batch.block.first_row, "last_row": batch.block.last_row}
            binds = {"job": job.id, "attempt": self.claim.attempt, **span, **result.counts}
            if not STATEMENTS.account_replay(conn, **binds):
                raise self.claim.lost(conn)
        return len(good)
