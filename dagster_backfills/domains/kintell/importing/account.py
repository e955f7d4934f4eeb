"""An import job as the database accounts for it: reading it, registering it. Not here: who may write to it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from dagster_backfills.domains.kintell.file.columns import Mapped
from dagster_backfills.domains.kintell.file.dialect import Form, ReadAs
from dagster_backfills.domains.kintell.file.header import Header
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.errors import UserError

CLAIMABLE = {
    "import": ("pending", "running", "paused", "failed"),
    "replay": ("completed", "failed", "paused", "cancelled"),
    "rollback": ("completed", "failed", "paused", "cancelled"),
}


@dataclass(frozen=True)
class ImportJob:
    """One row of `kintell.backfill_jobs`, at the time of reading."""

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
        """The file's header as it was registered; `data_offset` is where the checkpoint stands."""
        form = Form(self.delimiter, sheet=self.sheet)
        return Header(tuple(self.columns), form, self.checkpoint_offset, Mapped(self.mapping))

    @property
    def read_as(self) -> ReadAs:
        """What the file was taken for, so that it is read in the same way again."""
        return ReadAs(self.sheet, self.encoding, self.mapping)

    def check_claimable(self, activity: str) -> None:
        """Raise `UserError` where the job is not in a state to be imported, replayed or rolled back."""
        if self.rollback_started_at and activity != "rollback":
            raise UserError(f"Job {self.id} is being rolled back", hint="Its rollback can be resumed.")
        if self.status in CLAIMABLE[activity]:
            return
        if activity == "rollback" and self.status == "running":
            raise UserError(f"Job {self.id} is running", hint="Cancel it first.")
        verb = {"import": "resumed", "replay": "replayed", "rollback": "rolled back"}[activity]
        raise UserError(f"Job {self.id} is {self.status} and can't be {verb}")

    @property
    def progress(self) -> str:
        """How far the import is, in words."""
        percent = 100 * self.processed_rows / self.total_rows if self.total_rows else 100.0
        return f"{self.processed_rows:,} of {self.total_rows:,} rows ({percent:.1f} %)"

    @property
    def counts(self) -> dict[str, int]:
        """The account, by name; of a job that is rolled back, what is left of it."""
        names = ("total", "processed", "inserted", "updated", "skipped", "failed")
        left = {"inserted_rows": self.inserted_left, "updated_rows": self.updated_left}
        return {f"{name}_rows": getattr(self, f"{name}_rows") for name in names} | left

    @property
    def inserted_left(self) -> int:
        """Inserted sessions that a rollback has not removed."""
        return self.inserted_rows - self.removed_rows

    @property
    def updated_left(self) -> int:
        """Rewritten sessions that a rollback has not given their former version back."""
        return self.updated_rows - self.restored_rows

    @property
    def undone(self) -> dict[str, int]:
        """What a rollback has done so far."""
        return {"removed": self.removed_rows, "restored": self.restored_rows, "kept": self.kept_rows}

    @property
    def outcome(self) -> str:
        """What became of it, in words."""
        if self.rollback_started_at:
            return f"{self.status}: " + ", ".join(f"{count:,} {name}" for name, count in self.undone.items())
        return f"{self.inserted_rows:,} inserted, {self.failed_rows:,} rejected, {self.status}"


def load_job(conn: psycopg.Connection, job: UUID | str) -> ImportJob:
    """The job with this id. Raises `UserError` where there is none."""
    try:
        found = _jobs(conn, UUID(str(job)), 1)
    except ValueError:
        found = []
    if not found:
        raise UserError(f"There is no import job {job}", hint="`backfills kintell status` lists the jobs.")
    return found[0]


def list_jobs(conn: psycopg.Connection, most: int = 20) -> list[ImportJob]:
    """The newest jobs."""
    return _jobs(conn, None, most)


def _jobs(conn: psycopg.Connection, job: UUID | None, most: int) -> list[ImportJob]:
    with conn.cursor(row_factory=class_row(ImportJob)) as cursor:
        return cursor.execute(STATEMENTS.jobs.sql, {"job": job, "most": most}).fetchall()


def set_status(conn: psycopg.Connection, job: UUID | str, verb: str) -> ImportJob:
    """Pause or cancel a job, at once. Raises `UserError` where its status does not allow that."""
    status, allowed = {
        "pause": ("paused", ["running"]),
        "cancel": ("cancelled", ["pending", "running", "paused", "failed"]),
    }[verb]
    found = load_job(conn, job)
    changed: Any = STATEMENTS.set_status(conn, job=found.id, status=status, from_status=allowed)
    now = load_job(conn, job)
    if not changed:
        doing = f"{now.status}, {now.activity} going on" if now.activity else now.status
        raise UserError(f"Job {job} is {doing}: it can't be {status}", hint=f"Only {', '.join(allowed)} can.")
    return now
