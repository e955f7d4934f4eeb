"""The history of runs as an asset, whose materialization is the daily report."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from dagster_backfills.dagster.catalog import catalog_of, code_here, code_version
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.operations.history import copy_runs, forget_runs
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
        "Every run of this instance with its job, cause, outcome and times, kept for two years or "
        "JOB_HISTORY_KEEP_DAYS, even after Dagster has forgotten it. Its materialization is a report of the last 30 "
        "days: runs by day and outcome, durations by job, rows by domain."
    ),
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=26)),
    code_version=code_version(STATEMENTS["store_runs"]),
    metadata={**CATALOG.metadata("operations.job_runs"), **code_here("job_runs")},
)
def job_runs(context: dg.AssetExecutionContext, postgres: PostgresResource) -> dg.MaterializeResult:
    days = retention().job_history_keep_days
    with postgres.connect() as conn:
        written = copy_runs(conn, context.instance)
        forgotten = forget_runs(conn, days)
        entries = report(conn, datetime.now(UTC).date())
    context.log.info(
        f"{written:,} runs were new or had changed, {forgotten:,} were older than {days:,} days and are gone; "
        f"{entries['runs']:,} ended in {entries['days']} days, {entries['runs_failed']:,} of them failed."
    )
    return dg.MaterializeResult(metadata={"rows_written": written, "rows_removed": forgotten, **entries})
