"""The plan of a declared backfill: which partitions, what a run of them would do, and the job that says so in Dagster.

Not here: how a plan is found (`engine/plan`), nor how it looks (`dagster/plan_report`).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dagster as dg
import psycopg
from pydantic import Field, model_validator

from dagster_backfills.components.selection import Which
from dagster_backfills.dagster.io_manager import VARIABLES
from dagster_backfills.dagster.launchpad import flat
from dagster_backfills.dagster.layout import address_of
from dagster_backfills.dagster.plan_report import report_metadata
from dagster_backfills.engine.explain import Explanation, Part, explain
from dagster_backfills.engine.plan import Report, combined, plan
from dagster_backfills.engine.session import Connect
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.table.catalog import read_table
from dagster_backfills.environment import from_environment
from dagster_backfills.errors import UserError

if TYPE_CHECKING:
    from dagster_backfills.components.building import Backfill


class Plan(dg.Config):
    """Which partitions to plan."""

    which: Which = Field(
        default=Which.needed,
        description="needed: stale, missing or failed; due: what automation would write; stale; missing; failed; all; "
        "named: those in `partitions`.",
    )
    partitions: list[str] = Field(default=[], description="Partition keys, with `which: named`.")

    @model_validator(mode="after")
    def _named(self) -> "Plan":
        if (self.which is Which.named) != bool(self.partitions):
            raise ValueError("give `partitions` with `which: named`, and only then")
        return self


def plan_backfill(
    backfill: "Backfill",
    connect: Connect,
    which: Which,
    partitions: Sequence[str] = (),
    *,
    instance: dg.DagsterInstance | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Report:
    """What a run of the backfill over these partitions would do. Raises UserError for one that there is not."""
    settings = EngineSettings(**from_environment(EngineSettings, VARIABLES))
    with connect() as conn:
        chosen = backfill.selection(instance).choose(conn, which, partitions)
        keys_of = {
            first: [key for key, f in chosen.items() if f == first] for first in sorted(set(chosen.values()))
        }
        parts = {first: parts_of(backfill, conn, keys, first) for first, keys in keys_of.items()}
        conn.rollback()
    reports = []
    for first, of_tables in parts.items():
        keys = keys_of[first]
        addresses = {part.write.target.asset: part.address for part in of_tables}
        reports.append(plan(connect, [part.write for part in of_tables], addresses, keys, settings, log))
    return combined(reports)


def explain_unit(backfill: "Backfill", conn: psycopg.Connection[Any], unit: str) -> Explanation:
    """What is known of a unit or a partition of the backfill. Raises UserError where that is nothing."""
    keys = list(backfill.selection().choose(conn, Which.all))
    explanation = explain(conn, parts_of(backfill, conn, keys), unit, keys)
    conn.rollback()
    if not explanation.is_known and unit not in keys:
        raise UserError(
            f"Nothing of {backfill.name} is called {unit!r}.",
            hint="Give a unit as the declaration's `unit` column has it, or a partition's key.",
        )
    return explanation


def parts_of(
    backfill: "Backfill", conn: psycopg.Connection[Any], keys: Sequence[str], first: int = 0
) -> list[Part]:
    """The backfill's writes from the first of these tables on, with their tables and addresses, outside of any run."""
    run = dg.DagsterRun(job_name=f"plan_{backfill.name}", run_id=str(uuid4()))
    parts = []
    for write in backfill.write_set(backfill.declared.tables[first:], run, keys).writes:
        table = read_table(conn, *write.target.schema_and_table)
        parts.append(Part(write, table, address_of(write.target, table, backfill.partitions_def, keys)))
    return parts


def build_plan_job(backfill: "Backfill") -> dg.JobDefinition:
    """The job that plans a backfill: nothing is written, the report is metadata of its step."""

    @dg.op(
        name=f"plan_{backfill.name}_partitions",
        description="Say what a run would do, by doing it and rolling back.",
        required_resource_keys={backfill.database},
    )
    def rehearse(context: dg.OpExecutionContext, config: Plan) -> dg.Output[None]:
        connect = getattr(context.resources, backfill.database).connect
        try:
            report = plan_backfill(
                backfill, connect, config.which, config.partitions,
                instance=context.instance, log=context.log.warning,
            )  # fmt: skip
        except UserError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        return dg.Output(None, metadata=report_metadata(report))

    @dg.job(
        name=f"plan_{backfill.name}",
        description=f"What a run of {backfill.name} would change, row by row counted. Nothing is written.",
        config=flat(Plan, rehearse.name),
        executor_def=dg.in_process_executor,
        tags={"backfills/domain": backfill.group},
    )
    def planned() -> None:
        rehearse()

    return planned
