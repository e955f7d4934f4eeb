"""Jobs as every domain has them: in one process, and with a flat launchpad. Not here: what they do.

A backfill has two of them, with one question: which partitions. One writes them, one plans.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

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
        description="due: stale, missing or failed, except those that failed a moment ago; needed: stale, missing or "
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


def one_step_job(
    domain: str,
    description: str,
    *,
    step: str,
    name: str | None = None,
    out: dg.Out | None = None,
    resources: AbstractSet[str] = frozenset(),
    hooks: AbstractSet[dg.HookDefinition] = frozenset(),
    tags: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Any]], dg.JobDefinition]:
    """Turns a function into a job with one step, named `step` and described by the function's docstring.

    The launchpad asks for the fields of the function's `config`, if it has that parameter. name: the job's name, by
    default the function's. resources: keys of resources that the function takes from its context.
    """

    def make(function: Callable[..., Any]) -> dg.JobDefinition:
        asks = function.__annotations__.get("config")
        op = dg.op(name=step, out=out or dg.Out(dg.Nothing), required_resource_keys=set(resources))(function)
        return _job(name or function.__name__, domain, description, [op], asks, hooks, tags)

    return make


def _job(
    name: str,
    domain: str,
    description: str,
    ops: Sequence[dg.OpDefinition],
    asks: type[dg.Config] | None = None,
    hooks: AbstractSet[dg.HookDefinition] = frozenset(),
    tags: Mapping[str, str] | None = None,
) -> dg.JobDefinition:
    """Steps that do not wait for each other, each with the configuration that `asks` describes."""
    return dg.GraphDefinition(name, node_defs=ops).to_job(
        description=description,
        config=flat(asks, *(op.name for op in ops)) if asks else None,
        executor_def=dg.in_process_executor,
        tags={"backfills/domain": domain, **(tags or {})},
        hooks=hooks,
    )


def daily(at: str, name: str, job: Any, description: str) -> dg.ScheduleDefinition:
    """A schedule for every day at this time (UTC), switched on from the start."""
    hour, minute = map(int, at.split(":"))
    return dg.ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=f"{minute} {hour} * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"{at} UTC: {description}",
    )


def refresh_job(
    job: str, name: str, group: str, ops: Sequence[dg.OpDefinition], hooks: AbstractSet[dg.HookDefinition]
) -> dg.JobDefinition:
    """The job that writes whatever needs it: steps that take a Refresh, and do not wait for each other.

    A partition that can't be filled holds up nobody's counts.
    """
    description = f"Write the partitions of {name} that need it, however scattered, in one run."
    return _job(job, group, description, ops, Refresh, hooks)


def plan_job(
    name: str, group: str, database: str, plan: Callable[[dg.OpExecutionContext, Plan], Report]
) -> dg.JobDefinition:
    """The job that plans a backfill: nothing is written, the report is metadata of its step.

    plan: makes the report, with the resource `database`, and raises UserError for a partition that there is not.
    """
    description = f"What a run of {name} would change, counted row by row. Nothing is written."

    @one_step_job(
        group, description, name=f"plan_{name}", step=f"plan_{name}_partitions", resources={database}
    )
    def rehearse(context: dg.OpExecutionContext, config: Plan) -> None:
        """Say what a run would do, by doing it and rolling back."""
        with without_retry():
            context.add_output_metadata(report_metadata(plan(context, config)))

    return rehearse
