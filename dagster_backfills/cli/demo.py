"""`backfills demo`: everything on sample data, from an empty database to backfills that have run, in one command."""

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
    from dagster_backfills.cli.kintell.commands import start
    from dagster_backfills.defs.kintell.resources import KintellSettings
    from dagster_backfills.domains.kintell.importing.jobs import list_jobs
    from dagster_backfills.samples.kintell import demo_file

    with database() as conn:
        if list_jobs(conn, 1) or not demo_file().exists():
            say("Nothing to import. What was imported before: backfills kintell status")
            return
    allowed = ",".join([*KintellSettings().allowed, str(demo_file().parent)])
    os.environ["KINTELL_ALLOWED_LOCATIONS"] = allowed
    start(str(demo_file()))


# The runs of each domain as the command line does them, one by one, on the sample data of `samples/`.
DEMONSTRATIONS: dict[str, list[Callable[[], object]]] = {
    "training": [partial(run_, "training_completions", yes=True)],
    # All of them: what triggers have kept right is reported to Dagster too.
    "progress": [partial(run_, "progress_stats", which=Which.all, yes=True)],
    "scoring": [partial(run_, "scoring", yes=True)],
    "kintell": [_kintell, partial(launch, "refresh_daily_session_summary")],
    "queue": [partial(launch, "drain_background_jobs", {"idle_seconds": 1})],
}


def demo(
    serve: Annotated[bool, typer.Option("--serve", help="Then start the Dagster UI on this data.")] = False,
    port: Annotated[int, typer.Option(help="Port of the UI.")] = 3000,
    host: Annotated[str, typer.Option(help="Address of the UI. It asks for no password.")] = "127.0.0.1",
    verbose: Verbose = False,
) -> None:
    """Migrate, load sample data where there is none, run every domain's backfill, show the state before and after."""
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
        say("", "See more: backfills status progress_stats · backfills failures · backfills up")
        if serve:
            run_dagster(dict(os.environ), host, port, verbose)
    # The sample data has units that can't be written, to be looked at: that is no failure of the demonstration.
    raise typer.Exit(max((code for code in codes if code != FAILURES), default=OK))


def _code_of(run: Callable[[], object]) -> int:
    """The exit code of a command, or of a run that was launched."""
    try:
        ended = run()
    except typer.Exit as left:
        return left.exit_code
    return ended[1] if isinstance(ended, tuple) else OK
