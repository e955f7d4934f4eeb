"""Builders for jobs that run in one process and have a flat launchpad.

A backfill has two of them, one that writes partitions and one that plans. Both ask which partitions.
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
        description="due: stale, missing or failed, except partitions that failed recently; needed: stale, missing "
        "or failed; stale; missing; failed; all; named: the keys in `partitions`.",
    )
    partitions: list[str] = Field(default=[], description="Partition keys, with `which: named`.")

    @model_validator(mode="after")
    def _named(self) -> "Refresh":
        if (self.which is Which.named) != bool(self.partitions):
            raise ValueError("set `partitions` if and only if `which` is `named`")
        return self


class Plan(Refresh):
    """Which partitions to plan."""

    which: Which = Field(
        default=Which.needed,
        description="needed: stale, missing or failed; due: the partitions that automation would write; stale; "
        "missing; failed; all; named: the keys in `partitions`.",
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
    """Make the decorated function a job with one step, named `step` and described by the function's docstring.

    The launchpad has the fields of the function's `config` parameter, if it has one. name: the job's name, by default
    the function's. resources: keys of resources that the function takes from its context.
    """

    def make(function: Callable[..., Any]) -> dg.JobDefinition:
        config = function.__annotations__.get("config")
        op = dg.op(name=step, out=out or dg.Out(dg.Nothing), required_resource_keys=set(resources))(function)
        return job_of_steps(name or function.__name__, domain, description, [op], config, hooks, tags)

    return make


def job_of_steps(
    name: str,
    domain: str,
    description: str,
    ops: Sequence[dg.OpDefinition],
    config: type[dg.Config] | None = None,
    hooks: AbstractSet[dg.HookDefinition] = frozenset(),
    tags: Mapping[str, str] | None = None,
) -> dg.JobDefinition:
    """A job of independent steps, each with the fields of `config` as its configuration."""
    return dg.GraphDefinition(name, node_defs=ops).to_job(
        description=description,
        config=flat(config, *(op.name for op in ops)) if config else None,
        executor_def=dg.in_process_executor,
        tags={"backfills/domain": domain, **(tags or {})},
        hooks=hooks,
    )


def daily(at: str, name: str, job: Any, description: str) -> dg.ScheduleDefinition:
    """A schedule that runs the job every day at this time (UTC). It is running by default."""
    hour, minute = map(int, at.split(":"))
    return dg.ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=f"{minute} {hour} * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"{at} UTC: {description}",
    )


def plan_job(
    name: str, group: str, database: str, plan: Callable[[dg.OpExecutionContext, Plan], Report]
) -> dg.JobDefinition:
    """The job that plans a backfill. It writes nothing; the report is metadata of its step.

    plan: makes the report, using the resource `database`. Raises UserError for an unknown partition.
    """
    description = f"Count exactly which rows a run of {name} would change. Nothing is written."

    @one_step_job(
        group, description, name=f"plan_{name}", step=f"plan_{name}_partitions", resources={database}
    )
    def rehearse(context: dg.OpExecutionContext, config: Plan) -> None:
        """Compute what a run would change, by executing it and rolling back."""
        with without_retry():
            context.add_output_metadata(report_metadata(plan(context, config)))

    return rehearse
