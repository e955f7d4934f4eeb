"""The plan of a declared backfill: which partitions, and what a run of them would do; and what is known of one unit.

Not here: how either is found (`engine/plan`, `engine/explain`), nor how it looks (`dagster/plan_report`).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import psycopg

from dagster_backfills.components.backfill import Backfill
from dagster_backfills.dagster.io_manager import engine_settings
from dagster_backfills.dagster.jobs import Plan, plan_job
from dagster_backfills.engine.explain import Explanation, explain
from dagster_backfills.engine.model import Compute
from dagster_backfills.engine.plan import Report, combined, plan
from dagster_backfills.engine.selection import Which
from dagster_backfills.engine.session import Connect
from dagster_backfills.errors import UserError


def plan_backfill(
    backfill: Backfill,
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
        backfill.look(conn)  # as the run would; nothing of it is kept
        chosen = backfill.selection(instance).choose(conn, which, partitions)
        work = []
        for first in sorted(set(chosen.values())):
            keys = [key for key, f in chosen.items() if f == first]
            work.append((keys, backfill.parts(conn, keys, first)))
        names = backfill.names(conn)
        conn.rollback()
    reports = []
    for keys, parts in work:
        addresses = {part.write.target.asset: part.address for part in parts}
        reports.append(plan(connect, [part.write for part in parts], addresses, keys, settings, log))
    return replace(combined(reports), names=names)


def explain_unit(backfill: Backfill, conn: psycopg.Connection[Any], unit: str) -> Explanation:
    """What is known of a unit or a partition of the backfill. Raises UserError where that is nothing."""
    keys = list(backfill.selection().every(conn))
    parts = backfill.parts(conn, keys)
    try:
        explanation = explain(conn, parts, unit, keys)
    except psycopg.DataError:
        # Its query fails over it, so that nobody can ask what it gives; the ledger says why.
        conn.rollback()
        nothing = Compute(lambda *_: None)
        unasked = [replace(part, write=replace(part.write, source=nothing)) for part in parts]
        explanation = explain(conn, unasked, unit, keys)
    conn.rollback()
    if not explanation.is_known and unit not in keys:
        raise UserError(
            f"Nothing of {backfill.name} is called {unit!r}.",
            hint="Give a unit as the declaration's `unit` column has it, or a partition's key.",
        )
    return explanation


def build_plan_job(backfill: Backfill) -> dg.JobDefinition:
    """The job that plans a backfill."""

    def plan_in_run(context: dg.OpExecutionContext, config: Plan) -> Report:
        connect, log = getattr(context.resources, backfill.database).connect, context.log.warning
        return plan_backfill(
            backfill, connect, config.which, config.partitions, instance=context.instance, log=log
        )

    return plan_job(backfill.name, backfill.group, backfill.database, plan_in_run)
