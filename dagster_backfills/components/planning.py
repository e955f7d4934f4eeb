"""The plan of a declared backfill (what a run would change) and the explanation of one of its units.

Not here: computing them (`engine/plan`, `engine/explain`) and formatting them (`dagster/plan_report`).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import psycopg

from dagster_backfills.components.backfill import Backfill
from dagster_backfills.components.inspection import inspect
from dagster_backfills.dagster.io_manager import engine_settings
from dagster_backfills.dagster.jobs import Plan, plan_job
from dagster_backfills.engine.explain import Explanation, explain
from dagster_backfills.engine.model import Compute
from dagster_backfills.engine.plan import Report, plan
from dagster_backfills.engine.selection import Which
from dagster_backfills.engine.session import Connect
from dagster_backfills.errors import UserError


def plan_backfill(
    backfill: Backfill,
    connect: Connect,
    which: Which,
    partitions: Sequence[str] = (),
    *,
    log: Callable[[str], None] = lambda line: None,
) -> Report:
    """Plan a run of the backfill over these partitions. Raises UserError for an unknown partition or a mistake."""
    with connect() as conn:
        inspect(backfill, conn)
        backfill.mark_changes(conn)  # as a run would; rolled back below
        chosen = backfill.selection().choose(conn, which, partitions)
        work = []
        for first in sorted(set(chosen.values())):
            keys = [key for key, position in chosen.items() if position == first]
            work.append(([part.write for part in backfill.parts(conn, keys, first)], keys))
        names = backfill.names(conn)
        conn.rollback()
    return replace(plan(connect, work, engine_settings(), log), names=names)


def explain_unit(backfill: Backfill, conn: psycopg.Connection[Any], unit: str) -> Explanation:
    """Explain a unit or partition of the backfill. Raises UserError if nothing is known about it."""
    keys = list(backfill.selection().every(conn))
    parts = backfill.parts(conn, keys)
    try:
        explanation = explain(conn, parts, unit, keys)
    except psycopg.DataError:
        # The query fails for this unit, so its rows can't be computed. The ledger has the reason.
        conn.rollback()
        no_rows = Compute(lambda *_: None)
        without_query = [replace(part, write=replace(part.write, source=no_rows)) for part in parts]
        explanation = explain(conn, without_query, unit, keys)
    conn.rollback()
    if not explanation.is_known and unit not in keys:
        raise UserError(
            f"{backfill.name} has no unit or partition {unit!r}.",
            hint="Give a value of the declaration's `unit` column, or a partition key.",
        )
    return explanation


def build_plan_job(backfill: Backfill) -> dg.JobDefinition:
    """The job that plans a backfill."""

    def plan_in_run(context: dg.OpExecutionContext, config: Plan) -> Report:
        connect, log = getattr(context.resources, backfill.database).connect, context.log.warning
        return plan_backfill(backfill, connect, config.which, config.partitions, log=log)

    return plan_job(backfill.name, backfill.group, backfill.database, plan_in_run)
