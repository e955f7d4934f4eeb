"""The job that sets a declared backfill's controls. Not here: what they are (`engine/controls`)."""

import dagster as dg
from pydantic import Field

from dagster_backfills.components.backfill import Backfill
from dagster_backfills.dagster.cause import started_by
from dagster_backfills.dagster.failures import without_retry
from dagster_backfills.dagster.jobs import one_step_job
from dagster_backfills.engine.controls import Setting, change, read


class Controls(dg.Config):
    """What to set. Omitted fields keep their value."""

    paused: bool | None = Field(default=None, description="true: write nothing more; false: resume.")
    rest_seconds: float | None = Field(
        default=None, ge=0, description="Seconds between two batches; 0: none."
    )
    rows_per_second: float | None = Field(
        default=None, ge=0, description="Rows changed per second; 0: no limit."
    )
    window: str | None = Field(
        default=None, description="Hours in which runs may write, such as 22:00-05:00; none: all hours."
    )
    zone: str | None = Field(default=None, description="The window's time zone, such as Europe/Berlin.")


def build_control_job(backfill: Backfill) -> dg.JobDefinition:
    """The job that pauses, resumes and throttles a backfill."""

    @one_step_job(
        backfill.group,
        f"Pause or resume {backfill.name}, or limit its rate and its hours. Runs obey from their next batch.",
        name=f"control_{backfill.name}",
        step=f"set_controls_of_{backfill.name}",
        resources={backfill.database},
    )
    def set_controls(context: dg.OpExecutionContext, config: Controls) -> None:
        """Set the controls and record who did it."""
        setting = Setting(**config.model_dump())
        with without_retry(), backfill.connect(context) as conn:
            change(conn, backfill.name, backfill.assets, setting, started_by(context.run.tags))
            (control, *_) = read(conn, backfill.assets)
        context.add_output_metadata({name: f"{value}" for name, value in vars(control).items()})

    return set_controls
