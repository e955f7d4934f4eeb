"""An import from its checkpoint to its end: read, prepare, write with two connections, commit in order.

Every trouble that may pass (a cut connection, a restarted server, a deadlock) has one remedy: drop what is under
way and start again from the checkpoint in the database. Not here: Dagster, and what a row must be.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

import psycopg

from dagster_backfills.domains.kintell.file.dialect import PlainCsv, to_plain_csv
from dagster_backfills.domains.kintell.file.files import FileError, SourceFile, open_file
from dagster_backfills.domains.kintell.file.reader import read_blocks
from dagster_backfills.domains.kintell.importing.account import ImportJob, load_job
from dagster_backfills.domains.kintell.importing.claims import Claim, ClaimLost
from dagster_backfills.domains.kintell.importing.options import Options, Progress
from dagster_backfills.domains.kintell.importing.pipeline import WRITERS, Writers
from dagster_backfills.domains.kintell.importing.writer import ImportRules, OutOfTurn, Written, refuses_rows
from dagster_backfills.domains.kintell.rows.batches import Batch, prepare
from dagster_backfills.domains.kintell.rows.seen import SettledIds
from dagster_backfills.domains.kintell.rows.users import Users
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.engine.failures import ErrorClass, classify
from dagster_backfills.redact import redact

T = TypeVar("T")
RETRY_SECONDS = 300.0  # without progress, after which an unreachable database ends the run


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
    """Import a registered job from where it stands, and return it as it is then: completed, or failed, paused or
    cancelled. Raises `FileError` for a file that can't be read or has changed, `JobBusy`, `TooManyImports`, and
    `ClaimLost` where another attempt has taken over."""
    with Claim(url, job, "import", run_id=run_id, lease=options.lease) as claim:
        with claim.connect() as conn:
            found = load_job(conn, job)
            source = open_unchanged(found, allowed)
        try:
            work = _Import(claim, to_plain_csv(source, found.read_as), options, on_progress)
            until_it_passes(work.run_from_checkpoint, lambda: work.done_here, on_trouble)
        except ClaimLost as lost:
            if lost.status == "lost":
                raise
        with claim.connect() as conn:
            return load_job(conn, job)


def passes(error: BaseException) -> bool:
    """Whether the same again may go well: the server was away, or another transaction was in the way."""
    passing = classify(error) in (ErrorClass.CONNECTION, ErrorClass.CONFLICT)
    return passing or isinstance(error, OutOfTurn | psycopg.errors.LockNotAvailable)


def until_it_passes(
    work: Callable[[], T], done: Callable[[], int], on_trouble: Callable[[str], None] = lambda _: None
) -> T:
    """What `work` returns, which is begun again while its trouble passes, but not for long without more `done`."""
    before, since, waits = done(), time.monotonic(), 0.25
    while True:
        try:
            return work()
        except (OutOfTurn, psycopg.Error) as error:
            if done() > before:
                before, since, waits = done(), time.monotonic(), 0.25
            if not passes(error) or time.monotonic() - since > RETRY_SECONDS:
                raise
            on_trouble(f"{type(error).__name__}: {redact(str(error))}; starting again from the checkpoint")
        time.sleep(waits)
        waits = min(waits * 2, 15.0)


def open_unchanged(job: ImportJob, allowed: list[str]) -> SourceFile:
    """The job's file, if it still is what was registered. Its bytes are read only where its stamp has changed."""
    source = open_file(job.file_url, allowed)
    same = source.size == job.file_size and (
        source.stamp() == job.file_stamp or source.sha256() == job.file_sha256
    )
    if not same:
        raise FileError(
            f"{job.file_url} has changed since job {job.id} was registered (SHA-256 {job.file_sha256[:12]}…)",
            hint="Put the former file back and resume, or cancel the job and start the new file.",
        )
    return source


@dataclass
class _Import:
    claim: Claim
    plain: PlainCsv
    options: Options
    on_progress: Callable[[Progress], None]
    done_here: int = 0
    total: int = 0
    careful_upto: int = 0
    began: float = field(default_factory=time.monotonic)

    def run_from_checkpoint(self) -> None:
        with self.claim.connect() as conn:
            lost = self.claim.why_lost(conn)
            if lost:
                raise lost
            job = load_job(conn, self.claim.job)
            self.total = job.total_rows
            rules = ImportRules(
                job.on_duplicate,
                frozenset(job.header.positions),
                self.options.max_errors,
                self.options.max_error_ratio,
            )
            with Writers(self.claim, rules, self.careful_upto) as writers:
                self.drive(writers, self.prepared(conn, job))
            self.finish(conn, job)

    def prepared(self, conn: psycopg.Connection, job: ImportJob) -> Iterator[Batch]:
        """Batches from the checkpoint on, in the file's order."""
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
            for written in writers.written(batches):
                self.note(written)
        except psycopg.Error as error:
            if writers.failed_at <= self.careful_upto or not refuses_rows(error):
                raise
            # Rows that Postgres refuses: the same batch again, and this time each of them stands alone.
            self.careful_upto = writers.failed_at
            raise OutOfTurn(str(error).splitlines()[0]) from error

    def note(self, written: Written) -> None:
        rows = written.inserted + written.updated + written.skipped + written.failed
        self.done_here += rows
        seconds = max(time.monotonic() - self.began, 1e-6)
        rate = self.done_here / seconds
        left = (self.total - written.processed_rows) / rate if rate else 0.0
        self.on_progress(Progress(written.processed_rows, self.total, written.failed_rows, rate, left))
        if written.status != "running":
            raise ClaimLost(f"job {self.claim.job} is {written.status}", written.status)

    def finish(self, conn: psycopg.Connection, job: ImportJob) -> None:
        source = self.plain.given
        if source.stamp() != job.file_stamp and source.sha256() != job.file_sha256:
            raise FileError(f"{job.file_url} was changed while it was imported", hint="Roll the job back.")
        if not STATEMENTS.complete_job(conn, job=job.id, attempt=self.claim.attempt):
            raise self.claim.lost(conn)
