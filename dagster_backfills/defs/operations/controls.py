"""The job that sets a declared backfill's controls: pause, rest between batches, rows per second, hours."""

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
    """The controls to set. Controls that are not given stay unchanged."""

    backfill: str = Field(description="The backfill's name, for example training_completions.")
    paused: bool | None = Field(default=None, description="true: stop writing; false: resume.")
    rest_seconds: float | None = Field(default=None, description="Pause between batches; 0: no pause.")
    rows_per_second: float | None = Field(default=None, description="Limit of changed rows; 0: no limit.")
    window: str | None = Field(
        default=None, description="Hours in which the backfill may write, as in 22:00-05:00; none: all."
    )
    zone: str | None = Field(default=None, description="The time zone of `window`.")

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
    "Pause or resume a backfill, or limit its speed and its hours.",
    step="set_controls",
)
def control_backfill(context: dg.OpExecutionContext, config: ControlConfig) -> None:
    """Set the controls. Active runs apply them from their next batch on."""
    setting = Setting(**config.model_dump(exclude={"backfill"}))
    with without_retry():
        backfill = backfill_named(config.backfill, Path.cwd())
        with postgres_of(backfill).connect() as conn:
            change(conn, backfill.name, backfill.assets, setting, started_by(context.run.tags))
            controls = read(conn, backfill.assets)
    context.add_output_metadata({name: f"{value}" for name, value in vars(controls[0]).items()})
