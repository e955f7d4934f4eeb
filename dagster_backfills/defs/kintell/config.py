"""The run configuration of the import's jobs, as shown in Dagster's Launchpad."""

from dataclasses import fields
from enum import Enum
from typing import Any

import dagster as dg
from pydantic import Field, ValidationError, model_validator

from dagster_backfills.domains.kintell.file.dialect import ReadOptions
from dagster_backfills.domains.kintell.importing.jobs import LEASE_SECONDS, MAX_BATCH_ROWS, Options
from dagster_backfills.errors import UserError


class OnDuplicate(Enum):
    """What to do with a row whose session exists. Dagster's config uses the names of an enum, not its values."""

    skip = "skip"
    update = "update"
    error = "error"


class ImportSessions(dg.Config):
    """Configuration of an import: a file to start with, or a job to resume."""

    file: str = Field(
        default="",
        description="The CSV or workbook: a path or an fsspec URL (s3://…, gs://…) in an allowed location.",
    )
    sheet: str = Field(default="", description="The workbook's sheet, if more than one has data.")
    encoding: str = Field(
        default="", description="The file's encoding, if it is not UTF-8: for example windows-1252."
    )
    mapping: dict[str, str] = Field(
        default={},
        description="Columns by header: {Kennung: session_id}. An empty column ignores the header. "
        "Remembered for files with the same headers.",
    )
    job: str = Field(default="", description="The ID of a job to resume, instead of a file.")
    on_duplicate: OnDuplicate = Field(
        default=OnDuplicate.skip,
        description="If the session exists already: skip the row, update the session, or reject the row (error).",
    )
    batch_rows: int = Field(
        default=20_000,
        ge=1,
        le=MAX_BATCH_ROWS,
        description="Rows per transaction. A batch never exceeds 4 MB of the file.",
    )
    max_errors: int | None = Field(
        default=None, ge=0, description="Stop the job when more rows than this are rejected."
    )
    max_error_ratio: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Stop the job when a larger share of its rows is rejected. Checked after 1,000 rows.",
    )
    rollback_on_failure: bool = Field(
        default=False,
        description="If max_errors or max_error_ratio stops the job, roll it back instead of keeping its sessions.",
    )
    create_missing_users: bool = Field(
        default=False, description="Create users for unknown addresses, with a name derived from the address."
    )
    dry_run: bool = Field(default=False, description="Validate every row and write nothing to the database.")
    once: bool = Field(default=False, description="Do nothing if this content has been imported before.")
    lease_seconds: float = Field(
        default=LEASE_SECONDS,
        gt=0,
        description="Seconds without a heartbeat after which a worker is considered dead.",
    )

    def read_as(self) -> ReadOptions:
        return ReadOptions(self.sheet, self.encoding, self.mapping)

    @model_validator(mode="after")
    def _one_source(self) -> "ImportSessions":
        if bool(self.file) == bool(self.job):
            raise ValueError("set either `file` (to start an import) or `job` (to resume one)")
        return self

    def options(self) -> Options:
        return Options(**self.model_dump(include={option.name for option in fields(Options)}))


def import_config(**options: Any) -> dict[str, Any]:
    """The run configuration for these options of an import. Raises `UserError` for an invalid one."""
    given = {name: value for name, value in options.items() if value not in (None, "")}
    try:
        ImportSessions(**given, job="the one that is registered")
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
    return given


class RollBackImport(dg.Config):
    """Configuration of a rollback."""

    job: str = Field(description="The job's ID.")
    dry_run: bool = Field(default=True, description="Only count the sessions to remove, restore and keep.")


class Replay(dg.Config):
    """Configuration of a replay of rejected rows."""

    job: str = Field(description="The job's ID.")
    create_missing_users: bool = Field(default=False, description="Create users for unknown addresses.")
