"""The sensor that launches runs for the queue."""

import dagster as dg

from dagster_backfills.dagster.automation import UNFINISHED
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.queue.jobs import drain_background_jobs
from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.settings import DrainPolicy


@dg.sensor(
    job=drain_background_jobs,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Launches drain_background_jobs while background jobs are due, with at most JOBS_MAX_RUNS "
    "concurrent runs.",
)
def background_jobs_waiting(
    context: dg.SensorEvaluationContext, postgres: PostgresResource
) -> dg.RunRequest | dg.SkipReason:
    with postgres.connect() as conn:
        queue.take_back_expired(conn)
        conn.commit()
        [work] = queue.rows(conn, "waiting_work")
    policy = DrainPolicy.from_environment()
    filters = dg.RunsFilter(job_name=drain_background_jobs.name, statuses=UNFINISHED)
    active = context.instance.get_runs_count(filters)
    due, oldest = work["due"], work["oldest_seconds"]
    if not policy.should_launch(due, oldest, active):
        return dg.SkipReason(f"{due} jobs due, the oldest for {oldest:.0f} s; {active} runs active.")
    return dg.RunRequest(run_config={"concurrency": policy.concurrency})
