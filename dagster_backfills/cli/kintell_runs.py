"""Runs that `backfills kintell` starts and follows to their end. Not here: the commands, what they show of a job."""

import shutil
import time
from collections.abc import Callable
from typing import Any

import fsspec
import typer

from dagster_backfills.cli.domain_runs import database, launch
from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.kintell_show import show_job
from dagster_backfills.cli.kintell_watch import newest_job_of_run, watch_import
from dagster_backfills.cli.output import say
from dagster_backfills.domains.kintell.after.error_file import frequent_errors
from dagster_backfills.domains.kintell.importing.account import Job, load_job


def find_job(job: str, activity: str | None = None) -> Job:
    """The job; with `activity`, if it is in a state for that: no run is launched to learn that it is not."""
    with database() as conn:
        found = load_job(conn, job)
    if activity:
        found.check_claimable(activity)
    return found


def readable(file: str, job: Job | None = None) -> str:
    """The file, if it may be read, is there and has a header, or still is what `job` was registered with."""
    # What imports is loaded where one is about to begin.
    from dagster_backfills.defs.kintell.resources import KintellSettings
    from dagster_backfills.domains.kintell.file.files import open_file
    from dagster_backfills.domains.kintell.file.reader import read_header
    from dagster_backfills.domains.kintell.importing.importer import open_unchanged

    allowed = KintellSettings().allowed
    if job:
        open_unchanged(job, allowed)
    else:
        read_header(open_file(file, allowed))
    return file


def show(job: Job, json: bool) -> None:
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

    def find() -> Job | None:
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
        say(f"{job.failed_rows:,} rows were rejected: backfills kintell errors {job.id} -o FILE")
    raise typer.Exit(code or (FAILURES if job.failed_rows or job.status != "completed" else 0))


def say_how_to_go_on(job: Job | None) -> None:
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
