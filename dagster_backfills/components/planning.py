"""The plan of a declared backfill: which partitions, and what a run of them would do.

Not here: how a plan is found (`engine/plan`), nor how it looks (`dagster/plan_report`, `dagster/jobs`).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dagster as dg
import psycopg

from dagster_backfills.dagster.io_manager import engine_settings
from dagster_backfills.dagster.jobs import Plan, plan_job
from dagster_backfills.dagster.layout import address_of
from dagster_backfills.engine.explain import Explanation, Part, explain
from dagster_backfills.engine.plan import Report, combined, plan
from dagster_backfills.engine.selection import Which
from dagster_backfills.engine.session import Connect
from dagster_backfills.engine.table.catalog import read_table
from dagster_backfills.errors import UserError

if TYPE_CHECKING:
    from dagster_backfills.components.building import Backfill


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
    settings = engine_settings()
    with connect() as conn:
        chosen = backfill.selection(instance).choose(conn, which, partitions)
        keys_of = {
            first: [key for key, f in chosen.items() if f == first] for first in sorted(set(chosen.values()))
        }
        parts = {first: parts_of(backfill, conn, keys, first) for first, keys in keys_of.items()}
        names = backfill.names(conn)
        conn.rollback()
    reports = []
    for first, of_tables in parts.items():
        keys = keys_of[first]
        addresses = {part.write.target.asset: part.address for part in of_tables}
        reports.append(plan(connect, [part.write for part in of_tables], addresses, keys, settings, log))
    return replace(combined(reports), names=names)


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
    """The job that plans a backfill."""

    def plan_in_run(context: dg.OpExecutionContext, config: Plan) -> Report:
        connect, log = getattr(context.resources, backfill.database).connect, context.log.warning
        return plan_backfill(
            backfill, connect, config.which, config.partitions, instance=context.instance, log=log
        )

    return plan_job(backfill.name, backfill.group, backfill.database, plan_in_run)
