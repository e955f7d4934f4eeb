"""`backfills undo NAME`: reverts what a run changed, except rows changed since. A dry run unless --yes is given."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import psycopg
import typer

from dagster_backfills.cli.backfills import Declared, named, names
from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.output import Json, Limit, Wide, print_json, say
from dagster_backfills.cli.plan import show
from dagster_backfills.components.loading import databases
from dagster_backfills.components.undoing import run_to_undo
from dagster_backfills.dagster.io_manager import engine_settings
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.runner import Runner
from dagster_backfills.engine.selection import Which
from dagster_backfills.engine.undo import find, preview, undo
from dagster_backfills.errors import UserError
from dagster_backfills.identity import system_user
from dagster_backfills.names import counted
from dagster_backfills.postgres.embedded import resolve_database_url
from dagster_backfills.postgres.migrations import require_migrations

_HAS_RUN = "select 1 from backfill.runs where starts_with(run_id, %s) limit 1"


def undo_(
    what: Annotated[
        str,
        typer.Argument(metavar="NAME|RUN", help="A backfill, to undo its last run; or the ID of a run."),
    ],
    run: Annotated[str, typer.Argument(metavar="[RUN]", help="The ID of the run, or a prefix of it.")] = "",
    partition: Annotated[
        list[str] | None, typer.Option("--partition", "-p", help="Only this partition. Repeatable.")
    ] = None,
    limit: Limit = None,
    wide: Wide = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Undo the run. Default: only show what would be done.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove the rows a run inserted, and restore those it updated or deleted. Rows changed since are kept."""
    is_run = re.fullmatch("[0-9a-f-]*", what) and what not in names(Path.cwd())
    backfill = None if is_run else _declared(what)
    postgres = backfill.postgres if backfill else _database_of(run or what)
    require_migrations(postgres.libpq_url)
    settings = engine_settings()
    with postgres.connect() as conn:
        if backfill:
            keys = backfill.choose(conn, Which.named, partition) if partition else []
            undoing = run_to_undo(backfill.backfill, conn, run, keys)
        else:
            undoing = find(conn, run or what, partition or [])
    if undoing.unfinished:
        say(f"Run {undoing.run_id} has not finished, or was killed. Batches that it commits later stay.")
    if not yes:
        report = preview(postgres.connect, undoing, settings, say)
        if json:
            print_json({"undoes": undoing.run_id, "dry_run": True, **report.as_json()})
        else:
            say(f"Run to undo: {undoing.run_id}{', itself an undo' * undoing.redoes}.")
            show(report, "kept, changed since", limit, wide)
            if report.assets:
                say("Dry run: nothing was changed. To undo the run, add --yes.")
        raise typer.Exit(FAILURES if report.failures else 0)
    identity = RunIdentity(str(uuid4()), started_by=system_user())
    runner = Runner(postgres.connect, identity, settings, say)
    for _ in undo(runner, undoing):
        pass
    failed = _show_result(undoing.run_id, runner, json)
    raise typer.Exit(FAILURES if failed else 0)


def _show_result(undone: str, runner: Runner, json: bool) -> list[Any]:
    """Print what was undone; return the failures."""
    outcome, run_id = runner.outcome, runner.run_identity.run_id
    totals = {asset: outcome.total(asset) for asset in outcome.counts}
    if json:
        total = {
            asset: {"removed": n.deleted, "put_back": n.inserted, "restored": n.updated, "kept": n.unchanged}
            for asset, n in totals.items()
        }
        failures = [vars(each) for each in outcome.failures]
        print_json(
            {"undoes": undone, "dry_run": False, "run_id": run_id, "total": total, "failures": failures}
        )
    else:
        for asset, n in totals.items():
            say(
                f"{asset}: {counted(n.deleted, 'row')} removed, {n.inserted:,} put back, {n.updated:,} restored, "
                f"{n.unchanged:,} kept because they were changed since."
            )
        say(f"To revert this: backfills undo {run_id} --yes")
    return outcome.failures


def _database_of(run: str) -> PostgresResource:
    """The database that has the run: DATABASE_URL, or another one that a declaration names."""
    for variable in databases(Path.cwd()):
        with suppress(UserError, psycopg.Error):
            postgres = PostgresResource(url=resolve_database_url(variable))
            with postgres.connect() as conn:
                if conn.execute(_HAS_RUN, [run]).fetchone():
                    return postgres
    return PostgresResource()


def _declared(name: str) -> Declared:
    backfill = named(name, "undo")
    if not isinstance(backfill, Declared):
        raise UserError(
            f"Runs of {backfill.name} can't be undone: previous values of its tables are not kept.",
            f"Fix the source data and score the day again: backfills run {backfill.name} -p DAY",
        )
    return backfill
