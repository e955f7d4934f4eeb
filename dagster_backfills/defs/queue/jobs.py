"""Dagster jobs that process the queue and clean it up. Not here: the sensor that launches runs (`sensors`)."""

from dataclasses import asdict
from datetime import timedelta

import dagster as dg
from pydantic import Field

from dagster_backfills.dagster.jobs import daily, one_step_job
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.queue.assets import result_observation
from dagster_backfills.defs.queue.checks import RULES
from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.attempts import Result
from dagster_backfills.domains.queue.registry import background_job_types
from dagster_backfills.domains.queue.worker import Worker, WorkerOptions
from dagster_backfills.redact import redact


class DrainConfig(dg.Config):
    """How a run processes the queue."""

    concurrency: int = Field(default=4, ge=1, description="Jobs processed concurrently.")
    idle_seconds: float = Field(
        default=30.0, ge=0, description="The run ends once the queue is empty this long."
    )
    max_seconds: float = Field(default=3600.0, gt=0, description="Maximum duration of the run.")


@one_step_job(
    "jobs",
    "Processes background jobs, many in one run.",
    step="work_off_background_jobs",
    hooks=RULES.after(),
)
def drain_background_jobs(
    context: dg.OpExecutionContext, config: DrainConfig, postgres: PostgresResource
) -> None:
    """Process jobs until the queue stays empty or the time limit is reached.

    If the run is terminated, its unfinished jobs return to the queue.
    """
    registry = background_job_types()
    observed = {kind.name for kind in registry if kind.observed}
    for problem in registry.problems.values():
        context.log.error(redact(problem))

    def on_result(result: Result) -> None:
        job = result.job
        if result.status == "completed":
            if job.job_type in observed:
                context.log.info(f"{job.job_type} {job.id} completed")
                context.log_event(result_observation(result))
        elif result.status != "cancelled":
            reason = result.failure.message if result.failure else "the attempt no longer held the job"
            context.log.warning(f"{job.job_type} {job.id} {result.status}, attempt {job.attempt}: {reason}")

    options, name = WorkerOptions(**config.model_dump()), f"run {context.run_id}"
    tally = Worker(postgres.libpq_url, registry, options, name=name, on_result=on_result).run()
    context.log.info(
        f"{tally.completed} jobs completed, {tally.retried} will be retried, {tally.failed} failed"
    )
    numbers = asdict(tally) | {"seconds": round(tally.seconds, 1)}
    by_type = {f"completed/{kind}": count for kind, count in sorted(numbers.pop("by_type").items())}
    context.add_output_metadata(numbers | by_type)


class CleanUpConfig(dg.Config):
    """Which jobs are removed."""

    days: float = Field(
        default=0.0,
        ge=0,
        description="Remove jobs that finished more than this many days ago. 0 uses jobs.queue_settings "
        "(30 days unless changed).",
    )
    batch: int = Field(default=10_000, ge=1, description="Jobs removed per transaction.")


@one_step_job("jobs", "Removes background jobs that finished long ago.", step="remove_old_background_jobs")
def clean_up_background_jobs(
    context: dg.OpExecutionContext, config: CleanUpConfig, postgres: PostgresResource
) -> None:
    """Remove old finished jobs in batches, and reclaim jobs whose lease has expired."""
    removed = 0
    with postgres.connect() as conn:
        for count in queue.clean_up(conn, timedelta(days=config.days) if config.days else None, config.batch):
            conn.commit()
            removed += count
        taken_back = queue.take_back_expired(conn)
        conn.commit()
    context.log.info(f"{removed} jobs removed, {taken_back} reclaimed from dead workers")
    context.add_output_metadata({"removed": removed, "taken_back": taken_back})


clean_up_daily = daily(
    "03:30",
    "clean_up_background_jobs_daily",
    clean_up_background_jobs,
    "removes background jobs that finished long ago.",
)
