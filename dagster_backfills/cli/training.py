"""`backfills training rollback`: what nobody has completed is removed. All else is the verbs of every backfill."""

from typing import Annotated, Any

import typer

from dagster_backfills.cli.database import database
from dagster_backfills.cli.launch import launch
from dagster_backfills.cli.output import Json, Yes, confirm, print_json, say
from dagster_backfills.domains.training.rollback import preview
from dagster_backfills.errors import UserError

# With a callback it is a group, of one command too.
app = typer.Typer(
    no_args_is_help=True, help="Completion records of members: rollback.", callback=lambda: None
)


@app.command()
def rollback(
    backfill: Annotated[
        str, typer.Argument(help="The backfill: Dagster's backfill id, or a run's id.", show_default=False)
    ] = "",
    execute: Annotated[
        bool, typer.Option("--execute/--dry-run", help="Remove the records, or only say how many.")
    ] = False,
    remove_all_incomplete: Annotated[
        bool,
        typer.Option(
            "--remove-all-incomplete", help="Every record that is not completed, whoever created it."
        ),
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Undo one backfill: remove the records that it created and nobody has completed. A dry run unless --execute."""
    if bool(backfill) == remove_all_incomplete:
        raise UserError(
            "Nothing says what to undo."
            if not backfill
            else "One backfill and all of them exclude each other.",
            "Give a backfill's id, or --remove-all-incomplete.",
        )
    with database() as conn:
        plan = preview(conn, backfill or None)
    say(
        f"{plan.remove:,} records to remove and {plan.keep:,} to keep, because they have been completed since, "
        f"in {len(plan.organizations):,} organizations."
    )
    result: dict[str, Any] = {"remove": plan.remove, "keep": plan.keep, "dry_run": not execute, "removed": 0}
    code = 0
    if execute and plan.remove:
        confirm(f"Remove {plan.remove:,} records?", yes)
        config = {"backfill": backfill, "remove_all_incomplete": remove_all_incomplete, "dry_run": False}
        run_id, code = launch("rollback_training_backfill", config)
        with database() as conn:
            left = preview(conn, backfill or None).remove
        result |= {"removed": plan.remove - left, "run_id": run_id}
        say(f"{plan.remove - left:,} records removed.")
    elif not execute:
        say("A dry run: nothing was removed. To remove them, add --execute.")
    if json:
        print_json(result)
    raise typer.Exit(code)
