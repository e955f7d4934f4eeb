"""Retention of run records, read from environment variables."""

from collections.abc import Mapping

from pydantic import BaseModel, Field

from dagster_backfills.engine.journal import KEEP_DAYS
from dagster_backfills.environment import from_environment


class Retention(BaseModel):
    """Retention in days; 0 keeps records forever. Each field is read from the variable of its name in capitals."""

    job_history_keep_days: int = Field(default=730, ge=0)
    event_log_keep_days: int = Field(default=90, ge=0)
    journal_keep_days: int = Field(default=KEEP_DAYS, ge=0)


def retention(environment: Mapping[str, str] | None = None) -> Retention:
    """Read the settings. Raises UserError for an invalid number of days."""
    return Retention(**from_environment(Retention, "", environment))
