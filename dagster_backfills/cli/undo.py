"""`backfills undo NAME`: what a run changed is put back, but for what was changed since. Dry unless told otherwise."""

import re
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from dagster_backfills.cli.backfills import Declared, named, names
from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.output import Json, Limit, Wide, print_json, say
from dagster_backfills.cli.plan import show
from dagster_backfills.components.undoing import run_to_undo
from dagster_backfills.dagster.io_manager import engine_settings
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.engine.runner import Runner
from dagster_backfills.engine.selection import Which
from dagster_backfills.engine.undo import find, preview, undo, undo_identity
from dagster_backfills.errors import UserError
from dagster_backfills.identity import system_user
from dagster_backfills.names import counted
from dagster_backfills.postgres.migrations import require_migrations


def undo_(
    what: Annotated[
        str,
        typer.Argument(metavar="NAME|RUN", help="A backfill, of which the last run is meant; or a run's id."),
    ],
    run: Annotated[str, typer.Argument(metavar="[RUN]", help="A run's id, or how it begins.")] = "",
    partition: Annotated[
        list[str] | None, typer.Option("--partition", "-p", help="Only this partition; may be repeated.")
    ] = None,
    limit: Limit = None,
    wide: Wide = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do it. Without it, only say what it would do.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove what a run added and put back what it changed or removed; rows that were changed since are kept."""
    is_run = re.fullmatch("[0-9a-f-]*", what) and what not in names(Path.cwd())
    backfill = None if is_run else _declared(what)
    postgres = backfill.postgres if backfill else PostgresResource()
    require_migrations(postgres.libpq_url)
    settings = engine_settings()
    with postgres.connect() as conn:
        if backfill:
            keys = backfill.choose(conn, Which.named, partition) if partition else []
            undoing = run_to_undo(backfill.backfill, conn, run, keys)
        else:
            undoing = find(conn, run or what, partition or [])
    if undoing.unfinished:
        say(f"Run {undoing.run_id} has not finished, or died: what it commits from now on is not undone.")
    if not yes:
        report = preview(postgres.connect, undoing, settings, say)
        if json:
            print_json({"undoes": undoing.run_id, "dry_run": True, **report.as_json()})
        else:
            say(f"To be undone: run {undoing.run_id}{', which is an undo itself' * undoing.redoes}.")
            show(report, "kept, changed since", limit, wide)
            if report.assets:
                say("Nothing was done. Do it: add --yes.")
        raise typer.Exit(FAILURES if report.failures else 0)
    identity = undo_identity(undoing, str(uuid4()), started_by=system_user())
    runner = Runner(postgres.connect, identity, settings, say)
    for _ in undo(runner, undoing):
        pass
    failed = _tell(undoing.run_id, runner, json)
    raise typer.Exit(FAILURES if failed else 0)


def _tell(undone: str, runner: Runner, json: bool) -> list[Any]:
    """What was undone; returns what could not be."""
    outcome, run_id = runner.outcome, runner.run_identity.run_id
    failed = [*outcome.failed.values(), *outcome.unit_failures]
    totals = {asset: outcome.total(asset) for asset in outcome.counts}
    if json:
        total = {
            asset: {"removed": n.deleted, "put_back": n.inserted, "restored": n.updated, "kept": n.unchanged}
            for asset, n in totals.items()
        }
        failures = [vars(each) for each in failed]
        print_json(
            {"undoes": undone, "dry_run": False, "run_id": run_id, "total": total, "failures": failures}
        )
    else:
        for asset, n in totals.items():
            say(
                f"{asset}: {counted(n.deleted, 'row')} removed, {n.inserted:,} put back, {n.updated:,} restored, "
                f"{n.unchanged:,} kept because they were changed since."
            )
        say(f"To take this back: backfills undo {run_id} --yes")
    return failed


def _declared(name: str) -> Declared:
    backfill = named(name, "undo")
    if not isinstance(backfill, Declared):
        raise UserError(
            f"Runs of {backfill.name} can't be undone: its tables have no journal, what stood before is not kept.",
            f"Mend the source, and score the day anew: backfills run {backfill.name} -p DAY",
        )
    return backfill
