"""`backfills training rollback`: removes the records that nobody has completed."""

from typing import Annotated, Any

import typer

from dagster_backfills.cli.database import database
from dagster_backfills.cli.launch import launch
from dagster_backfills.cli.output import Json, Yes, confirm, print_json, say
from dagster_backfills.domains.training.rollback import preview
from dagster_backfills.errors import UserError

# The callback makes it a group, although it has only one command.
app = typer.Typer(no_args_is_help=True, help="Members' completion records: rollback.", callback=lambda: None)


@app.command()
def rollback(
    backfill: Annotated[
        str, typer.Argument(help="The ID of a Dagster backfill or of a run.", show_default=False)
    ] = "",
    execute: Annotated[
        bool, typer.Option("--execute/--dry-run", help="Remove the records, or only count them.")
    ] = False,
    remove_all_incomplete: Annotated[
        bool,
        typer.Option(
            "--remove-all-incomplete", help="Remove every incomplete record, whichever run created it."
        ),
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove the records that a backfill created and that nobody has completed. A dry run unless --execute is given."""
    if bool(backfill) == remove_all_incomplete:
        raise UserError(
            "Name the backfill to undo."
            if not backfill
            else "A backfill's ID and --remove-all-incomplete can't be used together.",
            "Use a backfill's ID, or --remove-all-incomplete.",
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
        say("Dry run: nothing was removed. To remove the records, add --execute.")
    if json:
        print_json(result)
    raise typer.Exit(code)
