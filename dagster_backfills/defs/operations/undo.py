"""The job that undoes a run. By default a dry run, whose report is metadata of the step."""

from typing import Any

import dagster as dg
from pydantic import Field

from dagster_backfills.dagster.cause import started_by
from dagster_backfills.dagster.failures import without_retry
from dagster_backfills.dagster.io_manager import engine_settings
from dagster_backfills.dagster.jobs import one_step_job
from dagster_backfills.dagster.plan_report import report_metadata
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.engine.runner import Runner
from dagster_backfills.engine.undo import find, preview, undo, undo_identity


class Undo(dg.Config):
    """What to undo."""

    run: str = Field(description="The ID of the run, or a unique prefix of it.")
    partitions: list[str] = Field(
        default=[], description="The partitions to undo. Empty: everything that the run wrote."
    )
    dry_run: bool = Field(default=True, description="Only report what would be deleted, restored and kept.")


@one_step_job(
    "operations",
    "Undo a run of any backfill: delete the rows that it inserted and restore those that it updated or deleted. Rows "
    "that have changed since are kept. A dry run unless `dry_run` is false.",
    step="undo_the_run",
    tags={"backfills/right": "undo"},
)
def undo_run(context: dg.OpExecutionContext, config: Undo, postgres: PostgresResource) -> None:
    """Report what undoing the run would change. Unless it is a dry run, undo it, batch by batch."""
    with without_retry():
        settings = engine_settings()
        with postgres.connect() as conn:
            undoing = find(conn, config.run, config.partitions)
        context.add_output_metadata({"undoes": undoing.run_id, "dry_run": config.dry_run})
        if config.dry_run:
            report = preview(postgres.connect, undoing, settings, context.log.warning)
            context.add_output_metadata(report_metadata(report))
            return
        resumes = "dagster/retry_number" in context.run.tags
        identity = undo_identity(
            undoing,
            context.run_id,
            context.run.root_run_id or context.run_id,
            resumes=resumes,
            started_by=started_by(context.run.tags),
        )
        runner = Runner(postgres.connect, identity, settings, context.log.warning)
        for _ in undo(runner, undoing):
            pass
    context.add_output_metadata(_metadata(runner))


def _metadata(runner: Runner) -> dict[str, Any]:
    outcome = runner.outcome
    failed = [*outcome.failed.values(), *outcome.unit_failures]
    if failed:
        first = failed[0]
        raise dg.Failure(
            f"{len(failed):,} rows could not be restored. The first, {first.unit or first.partition!r} "
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
