"""What there is to see of an import's run: how far it is, its job, what a dry run found. Only reads."""

from collections.abc import Callable
from typing import Any, cast

import psycopg
from psycopg.rows import namedtuple_row

from dagster_backfills.cli.follow import PartProgress, follow_run
from dagster_backfills.cli.output import duration, say
from dagster_backfills.domains.kintell.importing.account import ImportJob, load_job
from dagster_backfills.postgres.embedded import resolve_database_url

_QUERY = """
    select id, status, total_rows, processed_rows, failed_rows, rows_per_second
    from kintell.backfill_job_history where run_id = %s order by started_at desc nulls last limit 1
"""


def watch_import(run_id: str, ended: Callable[[], bool]) -> None:
    """Show how far the import of a run is, until the run has ended."""
    say(f"Run {run_id}")
    follow_run(resolve_database_url(), run_id, ended, read_import)


def read_import(conn: psycopg.Connection[Any], run_id: str) -> list[PartProgress]:
    """The job that a run works on, if it has one by now."""
    found: list[Any] = conn.cursor(row_factory=namedtuple_row).execute(_QUERY, [run_id]).fetchall()
    return [
        PartProgress(str(row.id), row.status, row.processed_rows, row.total_rows, _words(row))
        for row in found
    ]


def _words(row: Any) -> str:
    waiting = row.total_rows - row.processed_rows
    rate = f", {row.rows_per_second:,.0f}/s" if row.rows_per_second else ""
    left = f", {duration(waiting / float(row.rows_per_second))} left" if waiting and rate else ""
    return f"{row.processed_rows:,} of {row.total_rows:,} rows{rate}{left}, {row.failed_rows:,} rejected"


def newest_job_of_run(
    conn: psycopg.Connection[Any], run_id: str, job: str | None, file: str | None
) -> ImportJob | None:
    """The job that a run worked on; for a run that found nothing to do, the one that has its file."""
    row = conn.execute(_QUERY, [run_id]).fetchone()
    if row is None and not job and file:
        row = conn.execute(
            "select id from kintell.backfill_jobs where file_url = %s order by created_at desc limit 1",
            [file],
        ).fetchone()
    found = row[0] if row else job
    return load_job(conn, found) if found else None


def verdict_of(run_id: str) -> dict[str, Any] | None:
    """What a dry run found, as its run has it."""
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        for record in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_OUTPUT).records:
            event = record.event_log_entry.dagster_event
            verdict = event.step_output_data.metadata.get("verdict") if event else None
            if verdict:
                return cast(dict[str, Any], verdict.value)
    return None
