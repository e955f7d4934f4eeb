"""Undoing a run of a declared backfill: finding the run, and the job that undoes it.

Not here: how its rows are put back (`engine/undo`).
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import psycopg
from pydantic import Field

from dagster_backfills.components.backfill import Backfill
from dagster_backfills.dagster.failures import without_retry
from dagster_backfills.dagster.io_manager import engine_settings, run_identity
from dagster_backfills.dagster.jobs import one_step_job
from dagster_backfills.dagster.plan_report import report_metadata
from dagster_backfills.engine.results import RESULTS
from dagster_backfills.engine.runner import Runner
from dagster_backfills.engine.undo import find, preview, undo
from dagster_backfills.engine.undoing import Undoing
from dagster_backfills.errors import UserError


class Undo(dg.Config):
    """Which run to undo."""

    run: str = Field(
        default="",
        description="The run's ID or a unique prefix. Default: the last run that changed anything.",
    )
    partitions: list[str] = Field(
        default=[], description="Undo only these partitions. Default: every partition that the run changed."
    )
    dry_run: bool = Field(default=True, description="Only report what would be removed, restored and kept.")


def run_to_undo(
    backfill: Backfill, conn: psycopg.Connection[Any], run: str = "", partitions: Sequence[str] = ()
) -> Undoing:
    """Returns what a run changed in the backfill's tables.

    run: an ID or a unique prefix; by default the last run that changed anything and was not an undo. partitions: only
    these. Raises UserError for an unknown run or partition, and for a run that changed none of the backfill's tables.
    """
    run = run or RESULTS.last_change(conn, assets=backfill.assets) or ""
    if not run:
        raise UserError(
            f"No run has changed any table of {backfill.name}.",
            f"To see what a run would change: backfills plan {backfill.name}",
        )
    undoing = find(conn, run, partitions)
    if undoing.shapes and undoing.shapes.keys().isdisjoint(backfill.assets):
        raise UserError(
            f"Run {undoing.run_id} has not written any table of {backfill.name}.",
            f"To undo it anyway: backfills undo {undoing.run_id}",
        )
    return undoing.only(backfill.assets)


def build_undo_job(backfill: Backfill) -> dg.JobDefinition:
    """The job that undoes a run of the backfill, or reports what an undo would do."""

    @one_step_job(
        backfill.group,
        f"Undo a run of {backfill.name}: remove rows that it inserted, restore rows that it changed or deleted, keep "
        "rows that were changed since. A dry run unless `dry_run` is false.",
        name=f"undo_{backfill.name}",
        step=f"undo_a_run_of_{backfill.name}",
        resources={backfill.database},
        tags={"backfills/right": "undo"},
    )
    def undo_in_run(context: dg.OpExecutionContext, config: Undo) -> None:
        """Undo the run batch by batch. In a dry run, only report."""
        with without_retry():
            connect, settings = getattr(context.resources, backfill.database).connect, engine_settings()
            with connect() as conn:
                undoing = run_to_undo(backfill, conn, config.run, config.partitions)
            context.add_output_metadata({"undoes": undoing.run_id, "dry_run": config.dry_run})
            if config.dry_run:
                report = preview(connect, undoing, settings, context.log.warning)
                context.add_output_metadata(report_metadata(report))
                return
            runner = Runner(connect, run_identity(context.run), settings, context.log.warning)
            for _ in undo(runner, undoing):
                pass
        context.add_output_metadata(_totals(runner))

    return undo_in_run


def _totals(runner: Runner) -> dict[str, Any]:
    """Returns the numbers of rows. Raises dg.Failure if any row could not be restored."""
    outcome = runner.outcome
    if outcome.failures:
        first = outcome.failures[0]
        raise dg.Failure(
            f"{len(outcome.failures):,} rows could not be restored; the first, {first.unit or first.partition!r} "
            f"of {first.asset}: {first.message}",
            allow_retries=False,
        )
    totals = [outcome.total(asset) for asset in outcome.counts]
    return {
        "removed": sum(n.deleted for n in totals),
        "put_back": sum(n.inserted for n in totals),
        "restored": sum(n.updated for n in totals),
        "kept_changed_since": sum(n.unchanged for n in totals),
    }
