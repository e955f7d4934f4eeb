"""The queue as an asset: what it looks like over time, and what its media jobs made. Not here: the work."""

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
_LONGEST_TEXT = 500


CATALOG = catalog_of(Path(__file__).parent)

results_and_figures = [
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
            description="Every background job with its state, input, output and errors. Runs of "
            "drain_background_jobs work them off; a job's result is its output.",
        )
    ],
)
def background_jobs(postgres: PostgresResource) -> Iterator[dg.ObserveResult]:
    """Depth, oldest waiting, throughput and mean duration of the queue, in all and by type, every five minutes."""
    with postgres.connect() as conn:
        yield dg.ObserveResult(KEY, metadata=queue_metadata(conn))


def queue_metadata(conn: psycopg.Connection) -> dict[str, Any]:
    """The queue's figures under stable names, so that the UI charts each of them."""
    rows = queue.rows(conn, "metrics")
    totals: dict[str, Any] = {
        "depth": sum(r["waiting"] for r in rows),
        "scheduled": sum(r["scheduled"] for r in rows),
        "processing": sum(r["processing"] for r in rows),
        "oldest_waiting_seconds": round(max((r["oldest_waiting_seconds"] for r in rows), default=0.0), 1),
        "completed_last_hour": sum(r["completed_last_hour"] for r in rows),
        "failed_last_hour": sum(r["failed_last_hour"] for r in rows),
    }
    for r in rows:
        name = r["job_type"]
        totals[f"{name}/depth"] = r["waiting"]
        totals[f"{name}/oldest_waiting_seconds"] = round(r["oldest_waiting_seconds"], 1)
        totals[f"{name}/completed_last_hour"] = r["completed_last_hour"]
        if r["mean_seconds"] is not None:
            totals[f"{name}/mean_seconds"] = round(r["mean_seconds"], 2)
    return totals


def result_observation(result: Result) -> dg.AssetObservation:
    """A job's result as an observation: short values as they are, long text cut, lists counted."""
    metadata: dict[str, Any] = {"job_id": str(result.job.id), "job_type": result.job.job_type}
    for name, value in (result.output or {}).items():
        if isinstance(value, list):
            metadata[name] = len(value)
        elif name.endswith("_markdown"):
            metadata[name] = dg.MetadataValue.md(value[: 8 * _LONGEST_TEXT])
        elif isinstance(value, str):
            metadata[name] = value[:_LONGEST_TEXT]
        else:
            metadata[name] = value
    return dg.AssetObservation(KEY, description=f"{result.job.job_type} completed", metadata=metadata)
