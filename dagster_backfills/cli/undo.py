"""`backfills undo RUN`: what a run changed is put back, but for what was changed since. Dry unless told otherwise."""

from typing import Annotated
from uuid import uuid4

import typer

from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.output import print_json, say
from dagster_backfills.cli.plan import database_of, show
from dagster_backfills.dagster.io_manager import VARIABLES
from dagster_backfills.engine.runner import Runner
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.undo import find, preview, undo, undo_identity
from dagster_backfills.environment import from_environment
from dagster_backfills.identity import system_user

app = typer.Typer()


@app.command("undo")
def undo_(
    run: Annotated[str, typer.Argument(help="The run's id, or how it begins.")],
    partition: Annotated[
        list[str] | None, typer.Option("--partition", "-p", help="Only this partition; may be repeated.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do it. Without it, only say what it would do.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")
    ] = False,
) -> None:
    """Remove what a run added and put back what it changed or removed; rows that were changed since are kept."""
    postgres = database_of()
    settings = EngineSettings(**from_environment(EngineSettings, VARIABLES))
    with postgres.connect() as conn:
        undoing = find(conn, run, partition or [])
    if undoing.unfinished:
        say(f"Run {undoing.run_id} has not finished, or died: what it commits from now on is not undone.")
    if not yes:
        report = preview(postgres.connect, undoing, settings, say)
        if json:
            print_json({"undoes": undoing.run_id, "dry_run": True, **report.as_json()})
        else:
            show(report, kept="kept, changed since")
            say("Nothing was done. Do it: add --yes.")
        raise typer.Exit(FAILURES if report.failures else 0)
    identity = undo_identity(undoing, str(uuid4()), started_by=system_user())
    runner = Runner(postgres.connect, identity, settings, say)
    for _ in undo(runner, undoing):
        pass
    outcome = runner.outcome
    failed = [*outcome.failed.values(), *outcome.unit_failures]
    if json:
        print_json(
            {"undoes": undoing.run_id, "dry_run": False, "run_id": identity.run_id, **outcome_as_json(runner)}
        )
    else:
        for asset in outcome.counts:
            n = outcome.total(asset)
            say(
                f"{asset}: {n.deleted:,} rows removed, {n.inserted:,} put back, {n.updated:,} restored, "
                f"{n.unchanged:,} kept because they were changed since."
            )
        say(f"To take this back: backfills undo {identity.run_id} --yes")
    raise typer.Exit(FAILURES if failed else 0)


def outcome_as_json(runner: Runner) -> dict[str, object]:
    """What was undone, as plain data."""
    outcome = runner.outcome
    return {
        "total": {
            asset: {"removed": n.deleted, "put_back": n.inserted, "restored": n.updated, "kept": n.unchanged}
            for asset in outcome.counts
            for n in [outcome.total(asset)]
        },
        "failures": [vars(f) for f in (*outcome.failed.values(), *outcome.unit_failures)],
    }
