"""`backfills demo`: migrates an empty database, loads sample data and runs every backfill."""

import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Annotated

import typer

from dagster_backfills.cli.database import database, running_postgres
from dagster_backfills.cli.errors import FAILURES, OK
from dagster_backfills.cli.launch import launch
from dagster_backfills.cli.output import say
from dagster_backfills.cli.run import run_
from dagster_backfills.cli.status import status
from dagster_backfills.cli.up import Verbose, require_free, run_dagster
from dagster_backfills.domain_switches import VARIABLE, require_libraries
from dagster_backfills.engine.selection import Which
from dagster_backfills.instance.dagster_home import dagster_environment
from dagster_backfills.postgres.migrations import apply_migrations


def _kintell() -> None:
    from dagster_backfills.cli.kintell.files import start
    from dagster_backfills.defs.kintell.resources import KintellSettings
    from dagster_backfills.domains.kintell.importing.jobs import list_jobs
    from dagster_backfills.samples.kintell import demo_file

    with database() as conn:
        if list_jobs(conn, 1) or not demo_file().exists():
            say("Nothing to import. Earlier imports: backfills kintell status")
            return
    allowed = ",".join([*KintellSettings().allowed, str(demo_file().parent)])
    os.environ["KINTELL_ALLOWED_LOCATIONS"] = allowed
    start(str(demo_file()))


# The commands to run for each domain, on the sample data of `samples/`.
DEMONSTRATIONS: dict[str, list[Callable[[], object]]] = {
    "training": [partial(run_, "training_completions", yes=True)],
    # All partitions: those that triggers keep up to date are reported to Dagster too.
    "progress": [partial(run_, "progress_stats", which=Which.all, yes=True)],
    "scoring": [partial(run_, "scoring", yes=True)],
    "kintell": [_kintell, partial(launch, "refresh_daily_session_summary")],
    "queue": [partial(launch, "drain_background_jobs", {"idle_seconds": 1})],
}


def demo(
    serve: Annotated[bool, typer.Option("--serve", help="Start the Dagster UI afterwards.")] = False,
    port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
    host: Annotated[str, typer.Option(help="Address of the Dagster UI. There is no password.")] = "127.0.0.1",
    verbose: Verbose = False,
) -> None:
    """Migrate, load sample data into empty tables, run every domain's backfill, show the status before and after."""
    os.environ[VARIABLE] = "all"
    require_libraries()
    if serve:
        require_free(host, port)
    with running_postgres():
        os.environ.update(dagster_environment())
        for migration in apply_migrations(os.environ["DATABASE_URL"]):
            say(f"Applied migration {migration}.")
        codes = []
        for domain, runs in DEMONSTRATIONS.items():
            say("", f"— {domain} —")
            with database() as conn:
                say(import_module(f"dagster_backfills.samples.{domain}").load_demo(conn))
            codes += [_code_of(run) for run in runs]
        codes += [_code_of(partial(launch, name)) for name in ("observe_sources", "report_job_history")]
        say("")
        status()
        say("", "Next: backfills status progress_stats · backfills failures · backfills up")
        if serve:
            run_dagster(dict(os.environ), host, port, verbose)
    # The sample data contains invalid units on purpose. Their failures do not make the demo fail.
    raise typer.Exit(max((code for code in codes if code != FAILURES), default=OK))


def _code_of(run: Callable[[], object]) -> int:
    """The exit code of a command or a launched run."""
    try:
        result = run()
    except typer.Exit as exit:
        return exit.exit_code
    return result[1] if isinstance(result, tuple) else OK
