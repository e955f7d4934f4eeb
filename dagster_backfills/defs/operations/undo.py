"""Undoing a run from Dagster: a dry run unless it is told otherwise, with the report as metadata."""

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

    run: str = Field(description="The run's id, or its first characters.")
    partitions: list[str] = Field(
        default=[], description="Only these partitions; without any, everything that it wrote."
    )
    dry_run: bool = Field(default=True, description="Only say what would be removed, put back and kept.")


@one_step_job(
    "operations",
    "Undo a run of any backfill: what it added is removed, what it changed is put back, what was changed since is "
    "kept. A dry run unless `dry_run` is false.",
    step="undo_the_run",
    tags={"backfills/right": "undo"},
)
def undo_run(context: dg.OpExecutionContext, config: Undo, postgres: PostgresResource) -> None:
    """Say what undoing the run changes and keeps; unless it is a dry run, do it, batch by batch."""
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
            f"{len(failed):,} rows could not be put back; the first, {first.unit or first.partition!r} "
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
