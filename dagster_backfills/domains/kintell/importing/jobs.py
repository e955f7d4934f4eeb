"""Import jobs in the database: reading them, pausing and cancelling them; the options and progress of an import.

Imports little, because every code location loads it. Not here: claiming a job (`claims`).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from dagster_backfills.domains.kintell.file.columns import HeaderMapping
from dagster_backfills.domains.kintell.file.dialect import FileFormat, ReadOptions
from dagster_backfills.domains.kintell.file.header import Header
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.errors import UserError

LEASE_SECONDS = 60.0
MAX_BATCH_ROWS = 50_000
CLAIMABLE = {
    "import": ("pending", "running", "paused", "failed"),
    "replay": ("completed", "failed", "paused", "cancelled"),
    "rollback": ("completed", "failed", "paused", "cancelled"),
}


@dataclass(frozen=True)
class ImportJob:
    """One row of `kintell.backfill_jobs`, as it was when it was read."""

    id: UUID
    status: str
    file_name: str
    file_url: str
    file_size: int
    file_sha256: str
    file_stamp: str
    columns: list[str]
    delimiter: str
    recognized: str
    sheet: str
    encoding: str
    mapping: dict[str, str]
    on_duplicate: str
    total_rows: int
    processed_rows: int
    inserted_rows: int
    updated_rows: int
    skipped_rows: int
    failed_rows: int
    missing_users: int
    last_processed_row: int
    checkpoint_offset: int
    attempt: int
    activity: str | None
    heartbeat_at: datetime | None
    run_id: str | None
    error_message: str | None
    error_file: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    rollback_started_at: datetime | None
    rolled_back_at: datetime | None
    removed_rows: int
    restored_rows: int
    kept_rows: int

    @property
    def header(self) -> Header:
        """The file's header as registered. `data_offset` is the offset of the checkpoint."""
        format = FileFormat(self.delimiter, sheet=self.sheet)
        return Header(tuple(self.columns), format, self.checkpoint_offset, HeaderMapping(self.mapping))

    @property
    def read_as(self) -> ReadOptions:
        """The options the file was read with, so that every attempt reads it in the same way."""
        return ReadOptions(self.sheet, self.encoding, self.mapping)

    def check_claimable(self, activity: str) -> None:
        """Raise `UserError` if the job's status does not allow this activity: import, replay or rollback."""
        if self.rollback_started_at and activity != "rollback":
            raise UserError(f"Job {self.id} is being rolled back", hint="Its rollback can be resumed.")
        if self.status in CLAIMABLE[activity]:
            return
        if activity == "rollback" and self.status == "running":
            raise UserError(f"Job {self.id} is running", hint="Cancel it first.")
        verb = {"import": "resumed", "replay": "replayed", "rollback": "rolled back"}[activity]
        raise UserError(f"Job {self.id} is {self.status} and can't be {verb}")

    @property
    def percent(self) -> float:
        """The share of the rows that has been processed. A file without rows is done when its job is completed."""
        done = 100.0 if self.status == "completed" else 0.0
        return 100 * self.processed_rows / self.total_rows if self.total_rows else done

    @property
    def progress(self) -> str:
        """Processed rows as text, for people."""
        return f"{self.processed_rows:,} of {self.total_rows:,} rows ({self.percent:.1f} %)"

    @property
    def counts(self) -> dict[str, int]:
        """The row counters by name. Rolled-back sessions are no longer counted as inserted or updated."""
        names = ("total", "processed", "inserted", "updated", "skipped", "failed")
        remaining = {"inserted_rows": self.inserted_left, "updated_rows": self.updated_left}
        return {f"{name}_rows": getattr(self, f"{name}_rows") for name in names} | remaining

    @property
    def inserted_left(self) -> int:
        """Inserted sessions that no rollback has removed."""
        return self.inserted_rows - self.removed_rows

    @property
    def updated_left(self) -> int:
        """Updated sessions that no rollback has restored."""
        return self.updated_rows - self.restored_rows

    @property
    def undone(self) -> dict[str, int]:
        """The counters of the job's rollback."""
        return {"removed": self.removed_rows, "restored": self.restored_rows, "kept": self.kept_rows}

    @property
    def outcome(self) -> str:
        """The result as text, for people."""
        if self.rollback_started_at:
            return f"{self.status}: " + ", ".join(f"{count:,} {name}" for name, count in self.undone.items())
        return f"{self.inserted_rows:,} inserted, {self.failed_rows:,} rejected, {self.status}"


def load_job(conn: psycopg.Connection, job: UUID | str) -> ImportJob:
    """The job with this ID. Raises `UserError` if there is none."""
    try:
        jobs = _jobs(conn, UUID(str(job)), 1)
    except ValueError:
        jobs = []
    if not jobs:
        raise UserError(f"There is no import job {job}", hint="`backfills kintell status` lists the jobs.")
    return jobs[0]


def list_jobs(conn: psycopg.Connection, most: int = 20) -> list[ImportJob]:
    """The newest jobs, newest first."""
    return _jobs(conn, None, most)


def _jobs(conn: psycopg.Connection, job: UUID | None, most: int) -> list[ImportJob]:
    with conn.cursor(row_factory=class_row(ImportJob)) as cursor:
        return cursor.execute(STATEMENTS.jobs.sql, {"job": job, "most": most}).fetchall()


def set_status(conn: psycopg.Connection, job: UUID | str, verb: str) -> ImportJob:
    """Pause or cancel a job immediately. Raises `UserError` if its status does not allow it."""
    status, allowed = {
        "pause": ("paused", ["running"]),
        "cancel": ("cancelled", ["pending", "running", "paused", "failed"]),
    }[verb]
    job_id = load_job(conn, job).id
    changed: Any = STATEMENTS.set_status(conn, job=job_id, status=status, from_status=allowed)
    current = load_job(conn, job_id)
    if not changed:
        state = f"{current.status} ({current.activity} in progress)" if current.activity else current.status
        raise UserError(
            f"Job {job} is {state} and can't be {status}", hint=f"Only {', '.join(allowed)} jobs can."
        )
    return current


@dataclass(frozen=True)
class Options:
    """Options of one import attempt."""

    batch_rows: int = 20_000
    max_errors: int | None = None
    max_error_ratio: float | None = None
    create_missing_users: bool = False
    lease_seconds: float = LEASE_SECONDS

    @property
    def limits_errors(self) -> bool:
        """Whether the job stops by itself after too many errors."""
        return self.max_errors is not None or self.max_error_ratio is not None

    def exceeded(self, processed: int, failed: int, total: int) -> str | None:
        """The limit that the job has exceeded, as its error message. The ratio counts from 1,000 rows on."""
        if self.max_errors is not None and failed > self.max_errors:
            return f"Stopped: {failed} rows were rejected, max_errors is {self.max_errors}"
        ratio = failed / processed if processed >= min(1000, total) and processed else 0.0
        if self.max_error_ratio is not None and ratio > self.max_error_ratio:
            limit = f"max_error_ratio is {self.max_error_ratio:g}"
            return f"Stopped: {failed} of {processed} rows were rejected, {limit}"
        return None


@dataclass(frozen=True)
class Progress:
    """Progress after a committed batch. `rows_per_second` and `seconds_left` are based on this attempt."""

    processed: int
    total: int
    failed: int
    rows_per_second: float
    seconds_left: float

    def __str__(self) -> str:
        percent = 100 * self.processed / self.total if self.total else 100.0
        return (
            f"{percent:.1f} % ({self.processed:,} of {self.total:,} rows), {self.rows_per_second:,.0f} rows/s, "
            f"{self.seconds_left:.0f} s left, {self.failed:,} rejected"
        )
