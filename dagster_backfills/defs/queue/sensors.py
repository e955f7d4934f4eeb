"""When the queue gets a run. Not here: what the run does."""

import os
from dataclasses import dataclass

import dagster as dg

from dagster_backfills.dagster.automation import UNFINISHED
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.queue.jobs import drain_background_jobs
from dagster_backfills.domains.queue import queue
from dagster_backfills.errors import UserError


@dataclass(frozen=True)
class DrainPolicy:
    """`max_runs` side by side. A further run beside one that works starts when a job has waited so long."""

    max_runs: int = 2
    further_after_seconds: float = 20.0
    concurrency: int = 4

    @classmethod
    def from_environment(cls) -> "DrainPolicy":
        """JOBS_MAX_RUNS, JOBS_FURTHER_RUN_AFTER_SECONDS and JOBS_CONCURRENCY (jobs side by side in one run)."""
        try:
            found = cls(
                int(os.environ.get("JOBS_MAX_RUNS") or cls.max_runs),
                float(os.environ.get("JOBS_FURTHER_RUN_AFTER_SECONDS") or cls.further_after_seconds),
                int(os.environ.get("JOBS_CONCURRENCY") or cls.concurrency),
            )
        except ValueError as error:
            raise UserError(f"One of JOBS_MAX_RUNS, JOBS_CONCURRENCY … is not a number: {error}.") from None
        if found.max_runs < 1 or found.concurrency < 1:
            raise UserError("JOBS_MAX_RUNS and JOBS_CONCURRENCY must be at least 1.")
        return found


def runs_to_launch(due: int, oldest_seconds: float, active: int, policy: DrainPolicy) -> int:
    """How many runs to launch now: 0 or 1, so that what the last one launched does is seen first."""
    if due == 0 or active >= policy.max_runs:
        return 0
    if active == 0:
        return 1
    return int(oldest_seconds >= policy.further_after_seconds)


@dg.sensor(
    job=drain_background_jobs,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Launches drain_background_jobs while background jobs wait, at most JOBS_MAX_RUNS side by side.",
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
    if not runs_to_launch(due, oldest, active, policy):
        return dg.SkipReason(f"{due} jobs wait, the oldest for {oldest:.0f} s; {active} runs at work.")
    return dg.RunRequest(run_config={"concurrency": policy.concurrency})
