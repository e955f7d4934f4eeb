"""Finds the job that a command refers to, and follows the runs that `backfills kintell` starts.

Not here: the commands (`commands`, `files`), the output of a job (`show`).
"""

import time
from collections.abc import Callable
from typing import Any, cast

import psycopg
import typer
from psycopg.rows import namedtuple_row

from dagster_backfills.cli.database import database
from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.follow import PartProgress, follow_run
from dagster_backfills.cli.kintell import options
from dagster_backfills.cli.kintell.show import show_job
from dagster_backfills.cli.launch import launch
from dagster_backfills.cli.output import duration, say
from dagster_backfills.domains.kintell.after.error_file import rejected_rows
from dagster_backfills.domains.kintell.file.dialect import ReadOptions
from dagster_backfills.domains.kintell.file.mapping import open_with_header
from dagster_backfills.domains.kintell.importing.jobs import ImportJob, load_job
from dagster_backfills.errors import UserError
from dagster_backfills.names import resolve_id
from dagster_backfills.postgres.embedded import resolve_database_url

HEADER_BYTES = 1024 * 1024  # enough of a converted file to read its header
_JOBS = "select id, file_name from kintell.backfill_jobs order by created_at desc"
_OF_RUN = """
    select id, status, total_rows, processed_rows, failed_rows, rows_per_second
    from kintell.backfill_job_history where run_id = %s order by started_at desc nulls last limit 1
"""
_HINT = "`backfills kintell status` lists the jobs."


def find(conn: psycopg.Connection[Any], job: str) -> ImportJob:
    """The job with this ID or file name, or a unique prefix of it."""
    names = {str(row[0]): row[1] for row in conn.execute(_JOBS)}
    return load_job(
        conn, resolve_id(job.casefold() if job.casefold() in names else job, names, "import job", _HINT)
    )


def find_job(job: str, activity: str | None = None) -> ImportJob:
    """Like `find`, and with `activity` check that the job's status allows it, before a run is launched."""
    with database() as conn:
        import_job = find(conn, job)
    if activity:
        import_job.check_claimable(activity)
    return import_job


def file_config(
    file: str, on_duplicate: str, sheet: str, encoding: str, maps: list[str] | None
) -> dict[str, Any]:
    """The run configuration for a file. Checks that it can be read and has a header, and prints its format."""
    from dagster_backfills.defs.kintell.resources import KintellSettings

    if on_duplicate not in ("skip", "update", "error"):
        raise UserError(f"Unknown --on-duplicate {on_duplicate}.", "Choose skip, update or error.")
    read_as = options.read_config(sheet, encoding, maps)
    config = {"on_duplicate": on_duplicate, "file": options.existing_location(file), **read_as}
    with database() as conn:
        _, header = open_with_header(
            conn, config["file"], KintellSettings().allowed, ReadOptions(**read_as), HEADER_BYTES
        )
        say(f"Recognized: {header}")
    return config


def import_and_show(config: dict[str, Any], json: bool) -> None:
    """Launch an import, follow its run, and show the job when it ends."""
    launched: dict[str, str] = {}

    def watch(run_id: str, ended: Callable[[], bool]) -> None:
        launched["run"] = run_id
        say(f"Run {run_id}")
        follow_run(resolve_database_url(), run_id, ended, read_import)

    def imported() -> ImportJob | None:
        with database() as conn:
            return newest_job_of_run(conn, launched.get("run", ""), config.get("job"), config.get("file"))

    try:
        _, code = launch("import_kintell_sessions", config, watch=watch)
    except KeyboardInterrupt:
        say_how_to_resume(imported())
        raise
    job = imported()
    if job is None:
        raise typer.Exit(code)
    show_job(job, json)
    if job.failed_rows and not json:
        with database() as conn:
            row = next(rejected_rows(conn, job.id), None)
        first = f" The first is row {row[0]:,}: {row[1]}" if row else ""
        say(
            f"{job.failed_rows:,} rows were rejected.{first}",
            f"To see all: backfills kintell errors {job.id} -o FILE",
        )
    raise typer.Exit(code or (FAILURES if job.failed_rows or job.status != "completed" else 0))


def say_how_to_resume(job: ImportJob | None) -> None:
    """After an interrupt, print the import's progress and the command that resumes it."""
    if job is None:
        say("Nothing was imported. To start again, repeat the command.")
    elif job.status == "completed":
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
    """The progress of the job that a run works on, if it has registered one."""
    rows: list[Any] = conn.cursor(row_factory=namedtuple_row).execute(_OF_RUN, [run_id]).fetchall()
    return [
        PartProgress(str(row.id), row.status, row.processed_rows, row.total_rows, _words(row)) for row in rows
    ]


def _words(row: Any) -> str:
    remaining = row.total_rows - row.processed_rows
    rate = f", {row.rows_per_second:,.0f}/s" if row.rows_per_second else ""
    left = f", {duration(remaining / float(row.rows_per_second))} left" if remaining and rate else ""
    return f"{row.processed_rows:,} of {row.total_rows:,} rows{rate}{left}, {row.failed_rows:,} rejected"


def newest_job_of_run(
    conn: psycopg.Connection[Any], run_id: str, job: str | None, file: str | None
) -> ImportJob | None:
    """The job that a run worked on. If the run had nothing to do, the newest job with its file."""
    row = conn.execute(_OF_RUN, [run_id]).fetchone()
    if row is None and not job and file:
        row = conn.execute(
            "select id from kintell.backfill_jobs where file_url = %s order by created_at desc limit 1",
            [file],
        ).fetchone()
    job_id = row[0] if row else job
    return load_job(conn, job_id) if job_id else None


def preview_of_run(run_id: str) -> dict[str, Any] | None:
    """The result of a dry run, from the metadata of its run."""
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        for record in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_OUTPUT).records:
            event = record.event_log_entry.dagster_event
            verdict = event.step_output_data.metadata.get("verdict") if event else None
            if verdict:
                return cast(dict[str, Any], verdict.value)
    return None
