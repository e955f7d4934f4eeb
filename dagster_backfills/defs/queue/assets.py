"""The queue as an observable asset: its metrics over time, and the results of its jobs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg

from dagster_backfills.dagster.catalog import catalog_of
from dagster_backfills.dagster.checks import periodically
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.attempts import Result

KEY = dg.AssetKey(["jobs", "background_jobs"])
_MAX_TEXT = 500
CATALOG = catalog_of(Path(__file__).parent)

queue_views = [
    CATALOG.spec(f"jobs.{view}")
    for view in ("my_jobs", "queue_metrics", "average_durations", "stuck_jobs", "repeatedly_failing_jobs")
]


@dg.multi_observable_source_asset(
    name="background_jobs",
    specs=[
        CATALOG.spec(
            "jobs.background_jobs",
            deps=[["jobs", "job_types"]],
            automation_condition=periodically("*/5 * * * *"),
            description="All background jobs with status, input, output and errors. "
            "Runs of drain_background_jobs process them.",
        )
    ],
)
def background_jobs(postgres: PostgresResource) -> Iterator[dg.ObserveResult]:
    """Queue depth, age of the oldest waiting job, throughput and mean duration, in total and by type."""
    with postgres.connect() as conn:
        yield dg.ObserveResult(KEY, metadata=queue_metadata(conn))


def queue_metadata(conn: psycopg.Connection) -> dict[str, Any]:
    """The queue's metrics, under stable keys so that the UI can chart each."""
    rows = queue.rows(conn, "metrics")
    metadata: dict[str, Any] = {
        "depth": sum(r["waiting"] for r in rows),
        "scheduled": sum(r["scheduled"] for r in rows),
        "processing": sum(r["processing"] for r in rows),
        "oldest_waiting_seconds": round(max((r["oldest_waiting_seconds"] for r in rows), default=0.0), 1),
        "completed_last_hour": sum(r["completed_last_hour"] for r in rows),
        "failed_last_hour": sum(r["failed_last_hour"] for r in rows),
    }
    for r in rows:
        name = r["job_type"]
        metadata[f"{name}/depth"] = r["waiting"]
        metadata[f"{name}/oldest_waiting_seconds"] = round(r["oldest_waiting_seconds"], 1)
        metadata[f"{name}/completed_last_hour"] = r["completed_last_hour"]
        if r["mean_seconds"] is not None:
            metadata[f"{name}/mean_seconds"] = round(r["mean_seconds"], 2)
    return metadata


def result_observation(result: Result) -> dg.AssetObservation:
    """A job's result as an observation. Long text is truncated, and lists are shown by their length."""
    metadata: dict[str, Any] = {"job_id": str(result.job.id), "job_type": result.job.job_type}
    for name, value in (result.output or {}).items():
        if isinstance(value, list):
            metadata[name] = len(value)
        elif name.endswith("_markdown"):
            metadata[name] = dg.MetadataValue.md(value[: 8 * _MAX_TEXT])
        elif isinstance(value, str):
            metadata[name] = value[:_MAX_TEXT]
        else:
            metadata[name] = value
    return dg.AssetObservation(KEY, description=f"{result.job.job_type} completed", metadata=metadata)
