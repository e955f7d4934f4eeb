"""What is done once a day, after the night's work: old entries of the journal go, the report on runs is made, and the
event log is thinned."""

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
    "Removes what the journal has kept for longer than 30 days, or JOURNAL_KEEP_DAYS; 0 keeps it all.",
    step="forget_old_entries",
)
def prune_journal(context: dg.OpExecutionContext, postgres: PostgresResource) -> None:
    """Remove the entries of old batches, some at a time."""
    days = retention().journal_keep_days
    with postgres.connect() as conn:
        gone = sum(prune(conn, days)) if days else 0
    context.log.info(f"{gone:,} entries of the journal were older than {days:,} days and are gone.")
    context.add_output_metadata({"entries_removed": gone})


report_job_history = dg.define_asset_job(
    "report_job_history",
    selection=dg.AssetSelection.assets(["operations", "job_runs"]),
    description="Copies the instance's runs into operations.job_runs and reports on the last 30 days.",
    tags={"backfills/domain": "operations", "dagster/max_runtime": "900"},
)


@one_step_job(
    "operations",
    "Removes from Dagster's event log what is older than EVENT_LOG_KEEP_DAYS and no asset's history.",
    step="remove_old_entries",
    tags={"dagster/max_runtime": "7200"},
)
def thin_dagster_event_log(context: dg.OpExecutionContext) -> None:
    """Remove what runs logged longer ago than EVENT_LOG_KEEP_DAYS and is no asset's history."""
    days, url = retention().event_log_keep_days, event_log_url(context.instance)
    if not days or url is None:
        context.log.info(
            "Nothing is removed: " + ("it is kept for ever." if url else "it is not in Postgres.")
        )
        return
    with connect(url, autocommit=True, application_name="backfills") as conn:
        removed = thin_event_log(conn, days)
    context.log.info(f"{removed:,} entries were older than {days:,} days and are gone.")
    context.add_output_metadata({"rows_removed": removed})


schedules = [
    daily("04:45", "prune_journal_daily", prune_journal, "the journal's old entries."),
    daily(
        "05:30",
        "daily_job_history",
        report_job_history,
        "the report on runs, after the nightly backfills and the scoring chain.",
    ),
    daily(
        "05:45",
        "daily_event_log_thinning",
        thin_dagster_event_log,
        "the event log, after the report on runs has been made of it.",
    ),
]
