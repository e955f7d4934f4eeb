"""The history of runs as an asset, whose materialization is the daily report."""

from datetime import UTC, datetime

import dagster as dg

from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.operations.history import copy_runs, forget_runs
from dagster_backfills.defs.operations.reporting import report
from dagster_backfills.domains.operations.settings import retention


@dg.asset(
    key=["operations", "job_runs"],
    group_name="operations",
    kinds={"postgres"},
    pool="operations.job_runs",
    description=(
        "Every run of this instance with its job, cause, outcome and times, kept though Dagster forgets it, for two "
        "years or JOB_HISTORY_KEEP_DAYS. Its materialization is a report of the last 30 days: runs by day and "
        "outcome, durations by job, rows by domain."
    ),
    metadata={"dagster/relation_identifier": "operations.job_runs"},
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
