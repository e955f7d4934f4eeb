"""Runs that `backfills kintell` starts and follows to their end. Not here: the commands, what they show of a job."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from dagster_backfills.cli.domain_runs import database
from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.kintell_show import show_job
from dagster_backfills.cli.output import say

if TYPE_CHECKING:
    from dagster_backfills.defs.kintell.account import Job


def find_job(job: str) -> "Job":
    from dagster_backfills.defs.kintell.account import load_job

    with database() as conn:
        return load_job(conn, job)


def import_and_show(config: dict[str, Any], json: bool) -> None:
    from dagster_backfills.cli.kintell_watch import newest_job_of_run, watch_import

    seen: dict[str, str] = {}

    def watch(run_id: str, ended: Callable[[], bool]) -> None:
        seen["run"] = run_id
        watch_import(run_id, ended)

    code = follow_run("import_kintell_sessions", config, watch=watch)
    with database() as conn:
        job = newest_job_of_run(conn, seen["run"], config.get("job"), config.get("file"))
    if job is None:
        raise typer.Exit(code)
    show_job(job, json)
    if job.failed_rows and not json:
        say(f"{job.failed_rows:,} rows were rejected: backfills kintell errors {job.id} -o FILE")
    raise typer.Exit(code or (FAILURES if job.failed_rows or job.status != "completed" else 0))


def copy(source: str, target: str) -> None:
    import shutil

    import fsspec

    with fsspec.open(source, "rb") as data, fsspec.open(target, "wb") as out:
        shutil.copyfileobj(data, out)


def waiting(run_id: str, ended: Callable[[], bool]) -> None:
    import time

    say(f"Run {run_id}")
    while not ended():
        time.sleep(0.2)


def follow_run(
    job: str, config: Mapping[str, Any], watch: Callable[[str, Callable[[], bool]], object]
) -> int:
    from dagster_backfills.cli.launch import exit_code, run_job

    run = run_job(job, config, watch=watch)
    code = exit_code(run)
    if code:
        from dagster_backfills.cli.kintell_watch import say_why

        say_why(run.run_id)
    return code
