"""The run history as an asset. Its materialization carries the daily report."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from dagster_backfills.dagster.catalog import catalog_of, code_here, code_version
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.operations.history import copy_runs, delete_runs
from dagster_backfills.defs.operations.reporting import report
from dagster_backfills.domains.operations.settings import retention
from dagster_backfills.domains.operations.statements import STATEMENTS

CATALOG = catalog_of(Path(__file__).parent)

views = [CATALOG.spec(f"operations.{view}") for view in ("job_days", "backfill_days", "open_failures")]


@dg.asset(
    key=["operations", "job_runs"],
    group_name="operations",
    kinds={"postgres", "table"},
    pool="operations.job_runs",
    description=(
        "All runs of this Dagster instance with job, cause, outcome and times. They are kept for two years, or for "
        "JOB_HISTORY_KEEP_DAYS, even if Dagster deletes them. The materialization reports on the last 30 days: runs "
        "by day and outcome, durations by job, rows by domain."
    ),
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=26)),
    code_version=code_version(STATEMENTS["store_runs"]),
    metadata={**CATALOG.metadata("operations.job_runs"), **code_here("job_runs")},
)
def job_runs(context: dg.AssetExecutionContext, postgres: PostgresResource) -> dg.MaterializeResult:
    days = retention().job_history_keep_days
    with postgres.connect() as conn:
        written = copy_runs(conn, context.instance)
        removed = delete_runs(conn, days)
        entries = report(conn, datetime.now(UTC).date())
    context.log.info(
        f"Copied {written:,} new or changed runs and deleted {removed:,} that were older than {days:,} days. "
        f"{entries['runs']:,} runs ended in the last {entries['days']} days, {entries['runs_failed']:,} of them failed."
    )
    return dg.MaterializeResult(metadata={"rows_written": written, "rows_removed": removed, **entries})
