"""Forgetting what stood before, once it is a month old or `JOURNAL_KEEP_DAYS`."""

import dagster as dg

from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.domains.operations.settings import retention
from dagster_backfills.engine.journal import prune


@dg.op(description="Remove the entries of old batches, some at a time.")
def forget_old_entries(context: dg.OpExecutionContext, postgres: PostgresResource) -> dg.Output[None]:
    days = retention().journal_keep_days
    with postgres.connect() as conn:
        gone = sum(prune(conn, days)) if days else 0
    context.log.info(f"{gone:,} entries of the journal were older than {days:,} days and are gone.")
    return dg.Output(None, metadata={"entries_removed": gone})


@dg.job(
    description="Removes what the journal has kept for longer than 30 days, or JOURNAL_KEEP_DAYS; 0 keeps it all.",
    executor_def=dg.in_process_executor,
    tags={"backfills/domain": "operations"},
)
def prune_journal() -> None:
    forget_old_entries()


prune_journal_daily = dg.ScheduleDefinition(
    job=prune_journal,
    name="prune_journal_daily",
    cron_schedule="45 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="04:45 UTC: the journal's old entries.",
)
