"""Daily maintenance jobs: pruning the journal, the report on runs, and pruning Dagster's event log."""

import dagster as dg

from dagster_backfills.dagster.jobs import daily, one_step_job
from dagster_backfills.dagster.private import event_log_url
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.domains.operations.event_log import thin_event_log
from dagster_backfills.domains.operations.settings import retention
from dagster_backfills.engine.journal import prune
from dagster_backfills.postgres.connection import connect


@one_step_job(
    "operations",
    "Delete journal entries older than 30 days, or than JOURNAL_KEEP_DAYS. With 0, all are kept.",
    step="forget_old_entries",
)
def prune_journal(context: dg.OpExecutionContext, postgres: PostgresResource) -> None:
    """Delete the journal entries of old batches, a few batches at a time."""
    days = retention().journal_keep_days
    with postgres.connect() as conn:
        removed = sum(prune(conn, days)) if days else 0
    context.log.info(f"Deleted {removed:,} journal entries older than {days:,} days.")
    context.add_output_metadata({"entries_removed": removed})


report_job_history = dg.define_asset_job(
    "report_job_history",
    selection=dg.AssetSelection.assets(["operations", "job_runs"]),
    description="Copy the instance's runs into operations.job_runs and report on the last 30 days.",
    tags={"backfills/domain": "operations", "dagster/max_runtime": "900"},
)


@one_step_job(
    "operations",
    "Delete events older than EVENT_LOG_KEEP_DAYS from Dagster's event log, except the assets' history.",
    step="remove_old_entries",
    tags={"dagster/max_runtime": "7200"},
)
def thin_dagster_event_log(context: dg.OpExecutionContext) -> None:
    """Delete events of runs that are older than EVENT_LOG_KEEP_DAYS and not part of an asset's history."""
    days, url = retention().event_log_keep_days, event_log_url(context.instance)
    if not days or url is None:
        reason = "EVENT_LOG_KEEP_DAYS is 0" if url else "the event log is not in Postgres"
        context.log.info(f"Nothing deleted: {reason}.")
        return
    with connect(url, autocommit=True, application_name="backfills") as conn:
        removed = thin_event_log(conn, days)
    context.log.info(f"Deleted {removed:,} events older than {days:,} days.")
    context.add_output_metadata({"rows_removed": removed})


schedules = [
    daily("04:45", "prune_journal_daily", prune_journal, "deletes old journal entries."),
    daily(
        "05:30",
        "daily_job_history",
        report_job_history,
        "reports on runs, after the nightly backfills and the scoring chain.",
    ),
    daily(
        "05:45",
        "daily_event_log_thinning",
        thin_dagster_event_log,
        "deletes old events, after the report on runs.",
    ),
]
