"""`backfills catalog`: what the database says of the tables in the lineage, kept beside the definitions."""

import warnings
from pathlib import Path
from typing import Annotated

import typer

from dagster_backfills.cli.domain_runs import database
from dagster_backfills.cli.output import say
from dagster_backfills.components.loading import describe
from dagster_backfills.dagster.catalog import FILE
from dagster_backfills.dagster.cataloguing import as_text
from dagster_backfills.dagster.project import project_defs
from dagster_backfills.errors import UserError

app = typer.Typer()


@app.command()
def catalog(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; end with 2 if it is out of date.")
    ] = False,
) -> None:
    """Write `catalog.json`: tables, columns, comments and column lineage, for Dagster's catalog."""
    folder = project_defs(Path.cwd())
    with database() as conn, warnings.catch_warnings():  # Dagster's own, about what is in beta
        warnings.simplefilter("ignore")
        described = describe(conn, folder)
    file, text = folder / FILE, as_text(described)
    if file.is_file() and file.read_text(encoding="utf-8") == text:
        say(f"{file} is up to date: {len(described)} tables.")
        return
    if check:
        raise UserError(f"{file} is not what the database says.", hint="Write it anew: backfills catalog")
    file.write_text(text, encoding="utf-8")
    say(f"Wrote {file}: {len(described)} tables.")
