"""When the report is made: once a day, after the night's work."""

import dagster as dg

from dagster_backfills.defs.operations.assets import job_runs

report_job_history = dg.define_asset_job(
    "report_job_history",
    selection=dg.AssetSelection.assets(job_runs),
    description="Copies the instance's runs into operations.job_runs and reports on the last 30 days.",
    tags={"dagster/max_runtime": "900"},
)

daily_job_history = dg.ScheduleDefinition(
    name="daily_job_history",
    job=report_job_history,
    cron_schedule="30 5 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="05:30 UTC: the report on runs, after the nightly backfills and the scoring chain.",
)
