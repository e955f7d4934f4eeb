"""`backfills demo`: everything on sample data, from an empty database to backfills that have run, in one command."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated

import psycopg
import typer

from dagster_backfills.cli.domain_runs import database
from dagster_backfills.cli.errors import FAILURES, OK
from dagster_backfills.cli.output import say
from dagster_backfills.cli.up import require_free, run_dagster, running_postgres
from dagster_backfills.lib.dagster_home import dagster_environment
from dagster_backfills.lib.postgres.migrations import apply_migrations

app = typer.Typer()


@dataclass(frozen=True)
class Demonstration:
    """One domain's part: where its sample data comes from, and its main job as the command line runs it."""

    domain: str
    sample: str
    run: Callable[[], int]


def _progress() -> int:
    from dagster_backfills.cli import progress

    try:
        progress.run(yes=True)
    except typer.Exit as ended:
        return ended.exit_code
    return OK


def _training() -> int:
    from dagster_backfills.cli import training

    try:
        training.run(yes=True)
    except typer.Exit as ended:
        return ended.exit_code
    return OK


DEMONSTRATIONS = [
    Demonstration("progress", "dagster_backfills.defs.progress.sample_data", _progress),
    Demonstration("training", "dagster_backfills.defs.training.sample_data", _training),
]


@app.command()
def demo(
    serve: Annotated[bool, typer.Option("--serve", help="Then start the Dagster UI on this data.")] = False,
    port: Annotated[int, typer.Option(help="Port of the UI.")] = 3000,
    host: Annotated[str, typer.Option(help="Address of the UI. It asks for no password.")] = "127.0.0.1",
) -> None:
    """Migrate, load sample data where there is none, run every domain's backfill, show the state before and after."""
    if serve:
        require_free(host, port)
    with running_postgres():
        os.environ.update(dagster_environment())
        for migration in apply_migrations(os.environ["DATABASE_URL"]):
            say(f"Applied migration {migration}.")
        codes = [_demonstrate(each) for each in DEMONSTRATIONS]
        say("", "See it: backfills progress status · backfills failures list · backfills up")
        if serve:
            run_dagster(dict(os.environ), host, port)
    raise typer.Exit(max(codes, default=OK) and FAILURES)


def _demonstrate(each: Demonstration) -> int:
    say("", f"— {each.domain} —")
    with database() as conn:
        say(_load(conn, each.sample))
    return each.run()


def _load(conn: psycopg.Connection, module: str) -> str:
    """Load a domain's sample data; what is there already is left as it is."""
    return import_module(module).load_demo(conn)
