"""`backfills triggers`: what tells of changes in a declared backfill's sources, as DDL to read, to apply, to remove."""

from typing import Annotated

import typer

from dagster_backfills.cli.declared import database_of
from dagster_backfills.cli.output import say
from dagster_backfills.components.loading import backfill_named
from dagster_backfills.engine.triggers import SourceTriggers, apply, remove
from dagster_backfills.errors import UserError

app = typer.Typer()


@app.command()
def triggers(
    name: Annotated[str, typer.Argument(help="The backfill.")],
    apply_: Annotated[bool, typer.Option("--apply", help="Make them, or make them anew.")] = False,
    remove_: Annotated[bool, typer.Option("--remove", help="Take them away without a trace.")] = False,
) -> None:
    """Print the DDL of the triggers that `stale_when` asks for; with --apply or --remove, run it."""
    if apply_ and remove_:
        raise UserError("--apply and --remove exclude each other.", "Give one of them.")
    backfill = backfill_named(name)
    wanted = [SourceTriggers(table) for table in backfill.watched()]
    if not wanted:
        raise UserError(
            f"{name} asks for no triggers.", "`stale_when` names the source tables to be followed."
        )
    if backfill.declared.stale_by != "triggers" and not remove_:
        raise UserError(
            f"{name} needs no triggers: it looks at its sources.", "With `stale_by: triggers` it would."
        )
    if not apply_ and not remove_:
        typer.echo("\n\n".join(each.create() for each in wanted))
        return
    with database_of(backfill.declared.database) as conn:
        (apply if apply_ else remove)(conn, wanted)
    sources = ", ".join(each.watched.source for each in wanted)
    said = "Triggers tell of changes in" if apply_ else "No trigger of it is left on"
    say(f"{said} {sources}.")
