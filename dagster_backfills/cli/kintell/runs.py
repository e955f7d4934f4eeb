"""Runs that `backfills kintell` starts and follows to their end. Not here: the commands, what they show of a job."""

import shutil
import time
from collections.abc import Callable
from typing import Any

import fsspec
import psycopg
import typer

from dagster_backfills.cli.database import database
from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.kintell.show import show_job
from dagster_backfills.cli.kintell.watch import newest_job_of_run, watch_import
from dagster_backfills.cli.launch import launch
from dagster_backfills.cli.output import say
from dagster_backfills.domains.kintell.after.error_file import frequent_errors
from dagster_backfills.domains.kintell.file.dialect import ReadAs, to_plain_csv
from dagster_backfills.domains.kintell.file.files import open_file
from dagster_backfills.domains.kintell.file.mapping import mapped_header
from dagster_backfills.domains.kintell.importing.account import ImportJob, load_job
from dagster_backfills.names import the_one

LOOKED_AT = 1024 * 1024  # bytes of a converted file, for its header
_JOBS = "select id, file_name from kintell.backfill_jobs order by created_at desc"
_FIRST = """
    select row_number, error_message from kintell.backfill_row_errors
    where job_id = %s and resolved_at is null order by row_number limit 1
"""
_HINT = "`backfills kintell status` lists the jobs."


def find(conn: psycopg.Connection[Any], job: str) -> ImportJob:
    """The job whose id or file this is, or begins so."""
    names = {str(row[0]): row[1] for row in conn.execute(_JOBS)}
    return load_job(
        conn, the_one(job.casefold() if job.casefold() in names else job, names, "import job", _HINT)
    )


def find_job(job: str, activity: str | None = None) -> ImportJob:
    """The job; with `activity`, if it is in a state for that: no run is launched to learn that it is not."""
    with database() as conn:
        found = find(conn, job)
    if activity:
        found.check_claimable(activity)
    return found


def unchanged(job: ImportJob) -> None:
    """Raise `FileError` where the job's file is no longer what it was registered with."""
    # What imports is loaded where one is about to begin.
    from dagster_backfills.defs.kintell.resources import KintellSettings
    from dagster_backfills.domains.kintell.importing.importer import open_unchanged

    open_unchanged(job, KintellSettings().allowed)


def readable(file: str, read_as: dict[str, Any]) -> dict[str, Any]:
    """The file and how it is read, for a run, if it may be read, is there and has a header. Says what it is."""
    from dagster_backfills.defs.kintell.resources import KintellSettings

    asked = ReadAs(**read_as)
    with database() as conn:
        beginning = to_plain_csv(open_file(file, KintellSettings().allowed), asked, most=LOOKED_AT)
        say(f"Recognized: {mapped_header(conn, beginning, asked)}")
    return {"file": file, **read_as}


def show(job: ImportJob, json: bool) -> None:
    """The job, with its most frequent errors."""
    with database() as conn:
        errors = frequent_errors(conn, job.id)
    show_job(job, errors, json)


def import_and_show(config: dict[str, Any], json: bool) -> None:
    """Import in a run, and show the job when it has ended."""
    seen: dict[str, str] = {}

    def watch(run_id: str, ended: Callable[[], bool]) -> None:
        seen["run"] = run_id
        watch_import(run_id, ended)

    def find() -> ImportJob | None:
        with database() as conn:
            return newest_job_of_run(conn, seen.get("run", ""), config.get("job"), config.get("file"))

    try:
        _, code = launch("import_kintell_sessions", config, watch=watch)
    except KeyboardInterrupt:
        say_how_to_go_on(find())
        raise
    job = find()
    if job is None:
        raise typer.Exit(code)
    show(job, json)
    if job.failed_rows and not json:
        with database() as conn:
            row = conn.execute(_FIRST, [job.id]).fetchone()
        first = f" The first: row {row[0]:,}: {row[1]}" if row else ""
        say(
            f"{job.failed_rows:,} rows were rejected.{first}",
            f"All: backfills kintell errors {job.id} -o FILE",
        )
    raise typer.Exit(code or (FAILURES if job.failed_rows or job.status != "completed" else 0))


def say_how_to_go_on(job: ImportJob | None) -> None:
    """After an interrupt: how far the import is, and the command that continues it."""
    if job is None:
        say("Nothing was imported. To begin again, give the same command.")
    elif job.status == "completed":
        say(f"Job {job.id} was completed before: {job.progress}.")
    else:
        say(
            f"Job {job.id} is {job.status} after {job.progress}; they stay.",
            f"To go on: backfills kintell resume {job.id}",
        )


def copy(source: str, target: str) -> None:

    with fsspec.open(source, "rb") as data, fsspec.open(target, "wb") as out:
        shutil.copyfileobj(data, out)


def waiting(run_id: str, ended: Callable[[], bool]) -> None:
    say(f"Run {run_id}")
    while not ended():
        time.sleep(0.2)
