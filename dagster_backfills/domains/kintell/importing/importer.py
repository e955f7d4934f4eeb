"""Runs an import from its checkpoint to the end of the file: read, validate, write on two connections, commit in order.

Every transient error (lost connection, server restart, deadlock) is handled in one way: discard the batches in flight
and start again from the checkpoint in the database. Not here: Dagster (`defs`), validation of rows (`rows`).
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

import psycopg

from dagster_backfills.domains.kintell.file.dialect import PlainCsv, to_plain_csv
from dagster_backfills.domains.kintell.file.files import FileError
from dagster_backfills.domains.kintell.file.reader import read_blocks
from dagster_backfills.domains.kintell.file.register import open_unchanged
from dagster_backfills.domains.kintell.importing.claims import Claim, ClaimLost
from dagster_backfills.domains.kintell.importing.jobs import ImportJob, Options, Progress, load_job
from dagster_backfills.domains.kintell.importing.retries import OutOfTurn, retry_transient
from dagster_backfills.domains.kintell.importing.writer import BatchResult, is_row_error, write_import_batch
from dagster_backfills.domains.kintell.rows.batches import Batch, prepare
from dagster_backfills.domains.kintell.rows.seen import SettledIds
from dagster_backfills.domains.kintell.rows.users import Users
from dagster_backfills.domains.kintell.statements import STATEMENTS

WRITERS = 2


def run_import(
    url: str,
    job: UUID,
    options: Options,
    allowed: list[str],
    *,
    run_id: str | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_trouble: Callable[[str], None] = lambda _: None,
) -> ImportJob:
    """Import a registered job from its checkpoint. Returns the job, which is then completed, failed, paused or
    cancelled. Raises `FileError` if the file can't be read or has changed, `JobBusy`, `TooManyImports`, and
    `ClaimLost` if another attempt took the job over."""
    with Claim(url, job, "import", run_id=run_id, lease=options.lease_seconds) as claim:
        with claim.connect() as conn:
            registered = load_job(conn, job)
            source = open_unchanged(registered, allowed)
        try:
            work = _Import(claim, to_plain_csv(source, registered.read_as), options, on_progress)
            retry_transient(work.run_from_checkpoint, lambda: work.rows_done, on_trouble)
        except ClaimLost as lost:
            if lost.status == "lost":
                raise
        with claim.connect() as conn:
            return load_job(conn, job)


class Writers:
    """Two connections with a thread each. In batches that start at or before row `isolate_upto`, the rows that Postgres
    rejects are isolated. `failed_at` is the last row of the first batch that failed."""

    def __init__(self, claim: Claim, job: ImportJob, options: Options, isolate_upto: int) -> None:
        self.claim, self.job, self.options, self.isolate_upto = claim, job, options, isolate_upto
        self.failed_at = 0
        self._in_flight: deque[tuple[int, Future[BatchResult]]] = deque()
        self._idle: deque[psycopg.Connection] = deque()

    def __enter__(self) -> "Writers":
        for _ in range(WRITERS):
            self._idle.append(self.claim.connect())
            STATEMENTS.create_stage(self._idle[-1])
        self._pool = ThreadPoolExecutor(WRITERS, thread_name_prefix="kintell-writer")
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for conn in self._idle:
            conn.close()

    def write(self, batches: Iterable[Batch]) -> Iterator[BatchResult]:
        """Write the batches and yield their results in order. Errors are raised after all batches in flight end."""
        for number, batch in enumerate(batches):
            if len(self._in_flight) == WRITERS:
                yield self._finish_oldest()
            conn = self._idle.popleft()
            STATEMENTS.begin_turn(conn, job=self.job.id, number=number)
            self._in_flight.append(
                (batch.block.last_row, self._pool.submit(self._write, conn, batch, number))
            )
        while self._in_flight:
            yield self._finish_oldest()

    def _write(self, conn: psycopg.Connection, batch: Batch, number: int) -> BatchResult:
        job, isolate = self.job, batch.block.first_row <= self.isolate_upto
        await_turn = partial(STATEMENTS.await_turn, conn, job=job.id, number=number - 1)
        try:
            with conn.transaction():
                return write_import_batch(
                    conn, self.claim, job, batch, self.options, await_turn, isolate=isolate
                )
        finally:
            with suppress(psycopg.Error):
                STATEMENTS.end_turn(conn, job=job.id, number=number)
            self._idle.append(conn)

    def _finish_oldest(self) -> BatchResult:
        last_row, future = self._in_flight.popleft()
        try:
            return future.result()
        except BaseException:
            self.failed_at = last_row
            self._pool.shutdown(wait=True, cancel_futures=True)
            raise


@dataclass
class _Import:
    claim: Claim
    plain: PlainCsv
    options: Options
    on_progress: Callable[[Progress], None]
    rows_done: int = 0  # by this attempt
    total: int = 0
    isolate_upto: int = 0
    began: float = field(default_factory=time.monotonic)

    def run_from_checkpoint(self) -> None:
        with self.claim.connect() as conn:
            lost = self.claim.why_lost(conn)
            if lost:
                raise lost
            job = load_job(conn, self.claim.job)
            self.total = job.total_rows
            with Writers(self.claim, job, self.options, self.isolate_upto) as writers:
                self.drive(writers, self.prepared(conn, job))
            self.finish(conn, job)

    def prepared(self, conn: psycopg.Connection, job: ImportJob) -> Iterator[Batch]:
        """Batches from the checkpoint on, in file order."""
        users, seen = Users(conn), SettledIds(conn, job.id, WRITERS)
        begin, first_row, rows = job.checkpoint_offset, job.last_processed_row + 1, self.options.batch_rows
        for block in read_blocks(self.plain, job.header, begin, first_row, rows):
            yield prepare(
                block,
                users,
                seen,
                create_missing_users=self.options.create_missing_users,
                position=STATEMENTS.next_event_position(conn),
            )

    def drive(self, writers: Writers, batches: Iterator[Batch]) -> None:
        try:
            for result in writers.write(batches):
                self.report(result)
        except psycopg.Error as error:
            if writers.failed_at <= self.isolate_upto or not is_row_error(error):
                raise
            # Postgres rejected a row: retry from the checkpoint, and this time isolate the rows it rejects.
            self.isolate_upto = writers.failed_at
            raise OutOfTurn(str(error).splitlines()[0]) from error

    def report(self, result: BatchResult) -> None:
        self.rows_done += sum(result.counts.values())
        rate = self.rows_done / max(time.monotonic() - self.began, 1e-6)
        left = (self.total - result.processed_rows) / rate if rate else 0.0
        self.on_progress(Progress(result.processed_rows, self.total, result.failed_rows, rate, left))
        if result.status != "running":
            raise ClaimLost(f"job {self.claim.job} is {result.status}", result.status)

    def finish(self, conn: psycopg.Connection, job: ImportJob) -> None:
        source = self.plain.source
        if source.stamp() != job.file_stamp and source.sha256() != job.file_sha256:
            raise FileError(f"{job.file_url} was changed while it was imported", hint="Roll the job back.")
        if not STATEMENTS.complete_job(conn, job=job.id, attempt=self.claim.attempt):
            raise self.claim.lost(conn)
