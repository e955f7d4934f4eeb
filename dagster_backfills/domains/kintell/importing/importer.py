"""An import from its checkpoint to its end: read, prepare, write with two connections, commit in order.

Every trouble that may pass (a cut connection, a restarted server, a deadlock) has one remedy: drop what is under
way and start again from the checkpoint in the database. Not here: Dagster, and what a row must be.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from uuid import UUID

import psycopg

from dagster_backfills.domains.kintell.file.dialect import PlainCsv, to_plain_csv
from dagster_backfills.domains.kintell.file.files import FileError, SourceFile, open_file
from dagster_backfills.domains.kintell.file.reader import read_blocks
from dagster_backfills.domains.kintell.importing.account import ImportJob, load_job
from dagster_backfills.domains.kintell.importing.claims import Claim, ClaimLost
from dagster_backfills.domains.kintell.importing.options import MAX_BATCH_ROWS, Options, Progress
from dagster_backfills.domains.kintell.importing.pipeline import WRITERS, Writers
from dagster_backfills.domains.kintell.importing.writer import ImportRules, OutOfTurn, Written, refuses_rows
from dagster_backfills.domains.kintell.rows.batches import Batch, prepare
from dagster_backfills.domains.kintell.rows.seen import SettledIds
from dagster_backfills.domains.kintell.rows.users import Users
from dagster_backfills.domains.kintell.statements import statements
from dagster_backfills.engine.failures import ErrorClass, classify
from dagster_backfills.redact import redact


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
    with Claim(
        url, job, "import", run_id=run_id, lease=options.lease, max_imports=options.max_imports
    ) as claim:
        with claim.connect() as conn:
            found = load_job(conn, job)
            source = open_unchanged(found, allowed)
        try:
            plain = to_plain_csv(source, found.read_as)
            _Import(claim, source, plain, options, on_progress, on_trouble).until_done()
        except ClaimLost as lost:
            if lost.status == "lost":
                raise
        with claim.connect() as conn:
            return load_job(conn, job)


def passes(error: BaseException) -> bool:
    """Whether the same again may go well: the server was away, or another transaction was in the way."""
    passing = classify(error) in (ErrorClass.CONNECTION, ErrorClass.CONFLICT)
    return passing or isinstance(error, OutOfTurn | psycopg.errors.LockNotAvailable)


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
    source: SourceFile
    plain: PlainCsv
    options: Options
    on_progress: Callable[[Progress], None]
    on_trouble: Callable[[str], None]
    done_here: int = 0
    total: int = 0
    careful_upto: int = 0
    began: float = field(default_factory=time.monotonic)

    def until_done(self) -> None:
        """Run from the checkpoint, again and again while trouble passes, until the job is settled."""
        last_progress, waits = time.monotonic(), 0.25
        while True:
            before = self.done_here
            try:
                return self.run_from_checkpoint()
            except (OutOfTurn, psycopg.Error) as error:
                if not passes(error):
                    raise
                self.on_trouble(
                    f"{type(error).__name__}: {redact(str(error))}; starting again from the checkpoint"
                )
                if self.done_here > before:
                    last_progress, waits = time.monotonic(), 0.25
                if time.monotonic() - last_progress > self.options.retry_for:
                    raise
            time.sleep(waits)
            waits = min(waits * 2, 15.0)

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
            with Writers(self.claim, rules) as writers:
                self.drive(writers, self.prepared(conn, job))
            self.finish(conn, job)

    def prepared(self, conn: psycopg.Connection, job: ImportJob) -> Iterator[Batch]:
        """Batches from the checkpoint on, in the file's order."""
        users, seen = Users(conn), SettledIds(conn, job.id, WRITERS)
        rows = max(1, min(self.options.batch_rows, MAX_BATCH_ROWS))
        blocks = read_blocks(self.plain, job.header, job.checkpoint_offset, job.last_processed_row + 1, rows)
        for block in blocks:
            yield prepare(
                block,
                users,
                seen,
                create_missing_users=self.options.create_missing_users,
                position=statements().next_event_position(conn),
            )

    def drive(self, writers: Writers, batches: Iterator[Batch]) -> None:
        try:
            for batch in batches:
                if not writers.free():
                    self.note(writers.oldest())
                writers.submit(batch, careful=batch.block.first_row <= self.careful_upto)
            while writers.pending():
                self.note(writers.oldest())
        except psycopg.Error as error:
            failed_at = writers.failed_at or 0
            if failed_at <= self.careful_upto or not refuses_rows(error):
                raise
            # Rows that Postgres refuses: the same batch again, and this time each of them stands alone.
            self.careful_upto = failed_at
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
        if self.source.stamp() != job.file_stamp and self.source.sha256() != job.file_sha256:
            raise FileError(f"{job.file_url} was changed while it was imported", hint="Roll the job back.")
        if not statements().complete_job(conn, job=job.id, attempt=self.claim.attempt):
            raise self.claim.why_lost(conn) or RuntimeError(f"job {job.id} could not be completed")
