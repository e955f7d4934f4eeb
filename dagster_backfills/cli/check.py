"""`backfills check`: mistakes in declarations, in their files and against their database. Nothing is written."""

from pathlib import Path
from typing import Annotated

import typer

from dagster_backfills.cli.declared import database_of
from dagster_backfills.cli.errors import USAGE
from dagster_backfills.cli.output import say
from dagster_backfills.components.inspection import inspect
from dagster_backfills.components.loading import backfill_named, declared, declared_folders
from dagster_backfills.dagster.project import project_defs
from dagster_backfills.engine.triggers import SourceTriggers
from dagster_backfills.errors import UserError

app = typer.Typer()


@app.command()
def check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Backfills; all of the project without any.")
    ] = None,
) -> None:
    """Say for each backfill whether its declaration is right; exit code 2 where one is not."""
    defs, mistakes = project_defs(Path.cwd()), 0
    folders = [backfill_named(name).folder for name in names or []] or declared_folders(defs)
    if not folders:
        raise UserError(
            f"No backfill is declared in {defs}.", "Write one: backfills new NAME --table schema.table"
        )
    for folder in folders:
        try:
            lacking = look(folder)
            say(f"{folder.name}: right" + (f", but {lacking}" if lacking else ""))
        except UserError as error:
            mistakes += 1
            say(f"{folder.name}: {error}")
    if mistakes:
        raise typer.Exit(USAGE)


def look(folder: Path) -> str:
    """What a right declaration lacks, if anything, and what to do. Raises UserError for one with a mistake."""
    backfill = declared(folder)
    with database_of(backfill.declared.database) as conn:
        inspect(backfill, conn)
        wanted = backfill.declared.stale_by == "triggers"
        lacking = [w.source for w in backfill.watched() if wanted and not SourceTriggers(w).present(conn)]
    if not lacking:
        return ""
    return f"no trigger tells of changes in {', '.join(lacking)}: backfills triggers {backfill.name}"
