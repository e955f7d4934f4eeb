"""Finds the job that a command refers to, and follows the runs that `backfills kintell` starts.

Not here: the commands (`commands`, `files`), the output of a job (`show`).
"""

import time
from collections.abc import Callable
from typing import Any

import psycopg
import typer
from psycopg.rows import namedtuple_row

from dagster_backfills.cli.database import database
from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.follow import PartProgress, follow_run
from dagster_backfills.cli.kintell.show import show_job
from dagster_backfills.cli.launch import launch
from dagster_backfills.cli.output import duration, say
from dagster_backfills.domains.kintell.importing.jobs import ImportJob, load_job
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.names import resolve_id
from dagster_backfills.postgres.embedded import resolve_database_url

_JOBS = "select id, file_name from kintell.backfill_jobs order by created_at desc"
_OF_RUN = """
    select id, status, total_rows, processed_rows, failed_rows, rows_per_second
    from kintell.backfill_job_history where run_id = %s order by started_at desc nulls last limit 1
"""
_HINT = "`backfills kintell status` lists the jobs."


def find_job(job: str, activity: str | None = None) -> ImportJob:
    """The job with this ID or file name, or a unique prefix of it.

    activity: checks that the job's status allows it, before a run is launched.
    """
    with database() as conn:
        names = {str(row[0]): row[1] for row in conn.execute(_JOBS)}
        given = job.casefold() if job.casefold() in names else job
        import_job = load_job(conn, resolve_id(given, names, "import job", _HINT))
    if activity:
        import_job.check_claimable(activity)
    return import_job


def reload(job: ImportJob) -> ImportJob:
    """The job as it is now."""
    with database() as conn:
        return load_job(conn, job.id)


def import_and_show(job: ImportJob, config: dict[str, Any], json: bool) -> None:
    """Launch a run that imports the job from its checkpoint, follow it, and show the job when it ends."""
    try:
        _, code = launch("import_kintell_sessions", {"job": str(job.id), **config}, watch=_follow)
    except KeyboardInterrupt:
        _say_how_to_resume(reload(job))
        raise
    job = reload(job)
    show_job(job, json)
    if job.failed_rows and not json:
        with database() as conn:
            rows = STATEMENTS.errors(conn, job=job.id, after=0, most=1)
        first = "".join(f" The first is row {number:,}: {message}" for number, message, *_ in rows)
        say(
            f"{job.failed_rows:,} rows were rejected.{first}",
            f"To see all: backfills kintell errors {job.id} -o FILE",
        )
    raise typer.Exit(code or (FAILURES if job.failed_rows or job.status != "completed" else 0))


def _follow(run_id: str, ended: Callable[[], bool]) -> None:
    say(f"Run {run_id}")
    follow_run(resolve_database_url(), run_id, ended, read_import)


def _say_how_to_resume(job: ImportJob) -> None:
    """After an interrupt, print the import's progress and the command that resumes it."""
    if job.status == "completed":
        say(f"Job {job.id} had already completed: {job.progress}.")
    else:
        say(
            f"Job {job.id} is {job.status} after {job.progress}. Imported rows are kept.",
            f"To continue: backfills kintell resume {job.id}",
        )


def wait_for_run(run_id: str, ended: Callable[[], bool]) -> None:
    """Wait for a run without progress to show."""
    say(f"Run {run_id}")
    while not ended():
        time.sleep(0.2)


def read_import(conn: psycopg.Connection[Any], run_id: str) -> list[PartProgress]:
    """The progress of the job that a run works on, if it has claimed one."""
    rows: list[Any] = conn.cursor(row_factory=namedtuple_row).execute(_OF_RUN, [run_id]).fetchall()
    return [
        PartProgress(str(row.id), row.status, row.processed_rows, row.total_rows, _words(row)) for row in rows
    ]


def _words(row: Any) -> str:
    remaining = row.total_rows - row.processed_rows
    rate = f", {row.rows_per_second:,.0f}/s" if row.rows_per_second else ""
    left = f", {duration(remaining / float(row.rows_per_second))} left" if remaining and rate else ""
    return f"{row.processed_rows:,} of {row.total_rows:,} rows{rate}{left}, {row.failed_rows:,} rejected"
