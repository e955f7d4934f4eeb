"""What the launchpad asks for. Not here: what is done with it."""

from enum import Enum

import dagster as dg
from pydantic import Field, model_validator

from dagster_backfills.domains.kintell.file.dialect import ReadAs
from dagster_backfills.domains.kintell.importing.claims import LEASE_SECONDS
from dagster_backfills.domains.kintell.importing.options import MAX_BATCH_ROWS, Options


class OnDuplicate(Enum):
    """What happens to a row whose session is in the database. Dagster takes an enumeration's names."""

    skip = "skip"
    update = "update"
    error = "error"


class ImportSessions(dg.Config):
    """One import: a new file, or a job that goes on."""

    file: str = Field(
        default="",
        description="The CSV or workbook: a path or an fsspec URL (s3://…, gs://…) in an allowed location.",
    )
    sheet: str = Field(default="", description="The workbook's sheet, where more than one has data.")
    encoding: str = Field(
        default="", description="The file's encoding, where it is not UTF-8: windows-1252, say."
    )
    mapping: dict[str, str] = Field(
        default={},
        description="Which column a header stands for: {Kennung: session_id}; an empty one leaves the header out. "
        "Remembered for files with the same headers.",
    )
    job: str = Field(default="", description="The id of a job to resume, instead of a file.")
    on_duplicate: OnDuplicate = Field(
        default=OnDuplicate.skip,
        description="A session that is in the database already: skip it, update it, or reject the row (error).",
    )
    batch_rows: int = Field(
        default=20_000,
        ge=1,
        le=MAX_BATCH_ROWS,
        description="Rows a transaction. A batch has 4 MB of file at most.",
    )
    max_errors: int | None = Field(
        default=None, ge=0, description="Stop the job when more rows than this are rejected."
    )
    max_error_ratio: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Stop the job when a larger share of its rows is rejected; judged from 1,000 rows on.",
    )
    rollback_on_failure: bool = Field(
        default=False,
        description="Roll back a job that max_errors or max_error_ratio stopped, instead of keeping it.",
    )
    create_missing_users: bool = Field(
        default=False, description="Create users for unknown addresses, with a name taken from the address."
    )
    dry_run: bool = Field(default=False, description="Check every row and write nothing to the database.")
    once: bool = Field(default=False, description="Do nothing if this content has been imported before.")
    lease_seconds: float = Field(
        default=LEASE_SECONDS,
        gt=0,
        description="Seconds without a heartbeat after which a worker counts as dead.",
    )

    def read_as(self) -> ReadAs:
        return ReadAs(self.sheet, self.encoding, self.mapping)

    @model_validator(mode="after")
    def _one_source(self) -> "ImportSessions":
        if bool(self.file) == bool(self.job):
            raise ValueError("give either `file`, to start, or `job`, to resume")
        return self

    def options(self) -> Options:
        return Options(
            batch_rows=self.batch_rows,
            max_errors=self.max_errors,
            max_error_ratio=self.max_error_ratio,
            create_missing_users=self.create_missing_users,
            lease=self.lease_seconds,
        )


class RollBackImport(dg.Config):
    """Rolling a job back."""

    job: str = Field(description="The job's id.")
    dry_run: bool = Field(default=True, description="Only say what would be removed, restored and kept.")


class Replay(dg.Config):
    """Another try for a job's rejected rows."""

    job: str = Field(description="The job's id.")
    create_missing_users: bool = Field(default=False, description="Create users for unknown addresses.")
