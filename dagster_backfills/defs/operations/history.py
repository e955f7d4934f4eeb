"""Copying the instance's runs into `operations.job_runs`. Not here: reports on them (`reporting`)."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg

from dagster_backfills.dagster.cause import cause_of
from dagster_backfills.domains.operations.statements import STATEMENTS

# Runs changed up to this long before the newest copied change are read again, because changes may be committed late.
_OVERLAP = timedelta(hours=1)
_PAGE = 1000
_OUTCOMES = {
    "QUEUED": "queued",
    "NOT_STARTED": "queued",
    "MANAGED": "running",
    "STARTING": "starting",
    "STARTED": "running",
    "SUCCESS": "succeeded",
    "FAILURE": "failed",
    "CANCELING": "cancelling",
    "CANCELED": "cancelled",
}


def copy_runs(conn: psycopg.Connection, instance: dg.DagsterInstance, page: int = _PAGE) -> int:
    """Copy new and changed runs into `operations.job_runs` and return the number of rows written.

    One transaction, because the newest copied change is the watermark from which the next copy starts. Also closes the
    engine's account of runs that ended without doing so.
    """
    newest = STATEMENTS.watermark(conn)
    since = dg.RunsFilter(updated_after=newest.astimezone(UTC) - _OVERLAP) if newest else dg.RunsFilter()
    pages = _pages(instance, since, page)
    written = sum(conn.execute(STATEMENTS["store_runs"], _columns(records)).rowcount for records in pages)
    STATEMENTS.close_ended_runs(conn)
    conn.commit()
    return written


def delete_runs(conn: psycopg.Connection, days: int) -> int:
    """Delete the runs that have not changed for `days` days and return their number. With 0, deletes none."""
    removed = STATEMENTS.forget_runs(conn, days=days) if days else 0
    conn.commit()
    return removed


def _pages(
    instance: dg.DagsterInstance, filters: dg.RunsFilter, page: int
) -> Iterator[Sequence[dg.RunRecord]]:
    cursor = None
    while records := instance.get_run_records(
        filters, limit=page, order_by="id", ascending=True, cursor=cursor
    ):
        yield records
        cursor = records[-1].dagster_run.run_id


def _columns(records: Sequence[dg.RunRecord]) -> dict[str, list[Any]]:
    runs = [record.dagster_run for record in records]
    return {
        "run_ids": [run.run_id for run in runs],
        "root_run_ids": [run.root_run_id or run.run_id for run in runs],
        "jobs": [job_of(run) for run in runs],
        "started_bys": [cause_of(run.tags) for run in runs],
        "partitions": [partitions_of(run.tags) for run in runs],
        "outcomes": [_OUTCOMES[run.status.value] for run in runs],
        "created_ats": [record.create_timestamp for record in records],
        "started_ats": [_time(record.start_time) for record in records],
        "ended_ats": [_time(record.end_time) for record in records],
        "seen_ats": [record.update_timestamp for record in records],
    }


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def job_of(run: dg.DagsterRun) -> str:
    """The job's name. For a run of selected assets, "materialize" and their groups."""
    if not run.job_name.startswith("__"):
        return run.job_name
    chosen = run.asset_selection or {check.asset_key for check in run.asset_check_selection or ()}
    groups = sorted({key.path[0] for key in chosen})
    return f"materialize {', '.join(groups)}" if groups else "materialize"


def partitions_of(tags: Mapping[str, str]) -> str | None:
    """The run's partition or partition range."""
    start = tags.get("dagster/asset_partition_range_start")
    if start is None:
        return tags.get("dagster/partition")
    end = tags["dagster/asset_partition_range_end"]
    return start if start == end else f"{start} … {end}"
