"""A backfill's two jobs, with one question: which partitions. One writes them, one plans. Not here: how they do it."""

from collections.abc import Callable, Sequence

import dagster as dg
from pydantic import Field, model_validator

from dagster_backfills.dagster.failures import without_retry
from dagster_backfills.dagster.launchpad import flat
from dagster_backfills.dagster.plan_report import report_metadata
from dagster_backfills.engine.plan import Report
from dagster_backfills.engine.selection import Which


class Refresh(dg.Config):
    """Which partitions to write."""

    which: Which = Field(
        default=Which.due,
        description="due: stale, missing or failed, but for those that failed a moment ago; needed: stale, missing or "
        "failed; stale; missing; failed; all; named: those in `partitions`.",
    )
    partitions: list[str] = Field(default=[], description="Partition keys, with `which: named`.")

    @model_validator(mode="after")
    def _named(self) -> "Refresh":
        if (self.which is Which.named) != bool(self.partitions):
            raise ValueError("give `partitions` with `which: named`, and only then")
        return self


class Plan(Refresh):
    """Which partitions to plan."""

    which: Which = Field(
        default=Which.needed,
        description="needed: stale, missing or failed; due: what automation would write; stale; missing; failed; all; "
        "named: those in `partitions`.",
    )


def refresh_job(
    job: str, name: str, group: str, ops: Sequence[dg.OpDefinition], hooks: set[dg.HookDefinition]
) -> dg.JobDefinition:
    """The job that writes whatever needs it: steps that take a Refresh, and do not wait for each other.

    A partition that can't be filled holds up nobody's counts.
    """

    @dg.job(
        name=job,
        description=f"Write the partitions of {name} that need it, however scattered, in one run.",
        config=flat(Refresh, *(op.name for op in ops)),
        executor_def=dg.in_process_executor,
        tags={"backfills/domain": group},
        hooks=hooks,
    )
    def refresh() -> None:
        for op in ops:
            op()

    return refresh


def plan_job(
    name: str, group: str, database: str, plan: Callable[[dg.OpExecutionContext, Plan], Report]
) -> dg.JobDefinition:
    """The job that plans a backfill: nothing is written, the report is metadata of its step.

    plan: makes the report, with the resource `database`, and raises UserError for a partition that there is not.
    """

    @dg.op(
        name=f"plan_{name}_partitions",
        description="Say what a run would do, by doing it and rolling back.",
        required_resource_keys={database},
    )
    def rehearse(context: dg.OpExecutionContext, config: Plan) -> dg.Output[None]:
        with without_retry():
            return dg.Output(None, metadata=report_metadata(plan(context, config)))

    @dg.job(
        name=f"plan_{name}",
        description=f"What a run of {name} would change, row by row counted. Nothing is written.",
        config=flat(Plan, rehearse.name),
        executor_def=dg.in_process_executor,
        tags={"backfills/domain": group},
    )
    def planned() -> None:
        rehearse()

    return planned
