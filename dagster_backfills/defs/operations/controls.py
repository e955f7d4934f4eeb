"""What operators can set for a declared backfill from Dagster: pause, rest, rows a second, hours."""

from pathlib import Path

import dagster as dg
from pydantic import Field, field_validator

from dagster_backfills.components.loading import backfill_named, postgres_of
from dagster_backfills.dagster.cause import started_by
from dagster_backfills.dagster.failures import without_retry
from dagster_backfills.dagster.jobs import one_step_job
from dagster_backfills.engine.controls import Setting, change, read
from dagster_backfills.errors import UserError


class ControlConfig(dg.Config):
    """What to set; what is left out stays as it is."""

    backfill: str = Field(description="The backfill's name: training_completions, progress_stats, …")
    paused: bool | None = Field(default=None, description="true: write nothing more; false: go on.")
    rest_seconds: float | None = Field(default=None, description="Between two batches; 0: none.")
    rows_per_second: float | None = Field(default=None, description="Rows changed a second; 0: no limit.")
    window: str | None = Field(
        default=None, description="Hours in which it may write, 22:00-05:00; none: all."
    )
    zone: str | None = Field(default=None, description="The window's time zone.")

    @field_validator("backfill")
    @classmethod
    def _is_one(cls, name: str) -> str:
        try:
            backfill_named(name, Path.cwd())
        except UserError as error:
            raise ValueError(str(error)) from error
        return name


@one_step_job(
    "operations",
    "Pause a backfill, let it go on, or set how fast it may go and at what hours.",
    step="set_controls",
)
def control_backfill(context: dg.OpExecutionContext, config: ControlConfig) -> None:
    """Set it, from each run's next batch on."""
    setting = Setting(**config.model_dump(exclude={"backfill"}))
    with without_retry():
        backfill = backfill_named(config.backfill, Path.cwd())
        with postgres_of(backfill).connect() as conn:
            change(conn, backfill.name, backfill.assets, setting, started_by(context.run.tags))
            controls = read(conn, backfill.assets)
    context.add_output_metadata({name: f"{value}" for name, value in vars(controls[0]).items()})
