"""What is done once a day, after the night's work: the report on runs, and thinning the event log."""

import dagster as dg

from dagster_backfills.dagster.private import event_log_url
from dagster_backfills.domains.operations.event_log import thin_event_log
from dagster_backfills.domains.operations.settings import retention
from dagster_backfills.postgres.connection import connect

report_job_history = dg.define_asset_job(
    "report_job_history",
    selection=dg.AssetSelection.assets(["operations", "job_runs"]),
    description="Copies the instance's runs into operations.job_runs and reports on the last 30 days.",
    tags={"backfills/domain": "operations", "dagster/max_runtime": "900"},
)

daily_job_history = dg.ScheduleDefinition(
    name="daily_job_history",
    job=report_job_history,
    cron_schedule="30 5 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="05:30 UTC: the report on runs, after the nightly backfills and the scoring chain.",
)


@dg.op(description="Remove what runs logged longer ago than EVENT_LOG_KEEP_DAYS and is no asset's history.")
def remove_old_entries(context: dg.OpExecutionContext) -> None:
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


@dg.job(
    description="Removes from Dagster's event log what is older than EVENT_LOG_KEEP_DAYS and no asset's history.",
    executor_def=dg.in_process_executor,
    tags={"backfills/domain": "operations", "dagster/max_runtime": "7200"},
)
def thin_dagster_event_log() -> None:
    remove_old_entries()


daily_event_log_thinning = dg.ScheduleDefinition(
    name="daily_event_log_thinning",
    job=thin_dagster_event_log,
    cron_schedule="45 5 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="05:45 UTC: the event log, after the report on runs has been made of it.",
)
