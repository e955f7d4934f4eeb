"""The job that rolls back one backfill, by default as a dry run. Not here: which records it deletes (the domain)."""

from typing import Any

import dagster as dg
from pydantic import Field, model_validator

from dagster_backfills.dagster.failures import without_retry
from dagster_backfills.dagster.jobs import one_step_job
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.dagster.tables import table
from dagster_backfills.defs.training.declared import COMPLETIONS, PROGRESS, TRAINING
from dagster_backfills.domains.training.rollback import Preview, analyze, preview, remove_batch
from dagster_backfills.engine.model import WriteSet

_LISTED = 50


class RollBackRecords(dg.Config):
    """What to roll back. Exactly one of `backfill` and `remove_all_incomplete` must be set."""

    backfill: str = Field(default="", description="The ID of the Dagster backfill, or of a run without one.")
    dry_run: bool = Field(default=True, description="Only report how many records would be removed and kept.")
    remove_all_incomplete: bool = Field(
        default=False, description="Remove all records that are not completed, whatever created them."
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> "RollBackRecords":
        if bool(self.backfill) == self.remove_all_incomplete:
            raise ValueError("set either `backfill` or `remove_all_incomplete: true`")
        return self


@one_step_job(
    "training",
    "Roll back one backfill: remove the records that it created, except those that have been completed since.",
    step="remove_records",
    out=dg.Out(io_manager_key="io_manager"),
    hooks=TRAINING.rules.after(),
    tags={"backfills/right": "undo"},
)
def rollback_training_backfill(
    context: dg.OpExecutionContext, config: RollBackRecords, postgres: PostgresResource
) -> dg.Output[WriteSet]:
    """Report what the rollback removes and keeps. Unless it is a dry run, remove the records, batch by batch, and
    recompute the progress of the organizations that lost records."""
    backfill_id = config.backfill or None
    removed, organizations = 0, list[str]()
    with postgres.connect() as conn:
        with without_retry():
            plan = preview(conn, backfill_id)
        context.log.info(
            f"{plan.remove:,} records to remove, {plan.keep:,} to keep because they have been completed since"
            f"{'. This is a dry run: nothing is removed' if config.dry_run else ''}."
        )
        if not config.dry_run:
            analyze(conn)
            for batch in plan.batches():
                removed += remove_batch(conn, batch, backfill_id)
                organizations += batch
    report = _report(plan, dry_run=config.dry_run, removed=removed)
    context.log_event(dg.AssetObservation(COMPLETIONS.asset.split("/"), metadata=report))
    TRAINING.add_partitions(context.instance, organizations)
    return dg.Output(TRAINING.write_set([PROGRESS], context.run, organizations), metadata=report)


def _report(plan: Preview, *, dry_run: bool, removed: int) -> dict[str, Any]:
    """The totals, and a table of the first organizations."""
    metadata: dict[str, Any] = {
        "dry_run": dry_run,
        "records_to_remove": plan.remove,
        "records_kept_completed": plan.keep,
        "records_removed": removed,
        "organizations": len(plan.organizations),
    }
    if plan.organizations:
        metadata["first_organizations"] = table(
            {"organization": organization, "remove": remove, "keep": keep}
            for organization, remove, keep in plan.organizations[:_LISTED]
        )
    return metadata
