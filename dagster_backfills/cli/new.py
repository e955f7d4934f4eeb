"""`backfills new`: the first draft of a declaration, from the table that it is to fill."""

from pathlib import Path
from typing import Annotated

import typer

from dagster_backfills.cli.declared import database_of
from dagster_backfills.cli.output import say
from dagster_backfills.dagster.project import project_defs
from dagster_backfills.engine.declared.draft import Draft, DraftParams
from dagster_backfills.engine.table.catalog import read_table
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.table_names import split_table

app = typer.Typer()


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The backfill's name, and its folder's.")],
    table: Annotated[str, typer.Option(help='The table to fill: schema.table, or schema."Table".')],
    partition_column: Annotated[
        str, typer.Option(help="Its column that holds the partition, if it is cut into partitions.")
    ] = "",
    unit: Annotated[
        str, typer.Option(help="Its column that holds a part of a partition, as a member's id.")
    ] = "",
) -> None:
    """Look at a table, and write the defs.yaml and queries.sql of a backfill that fills it. Says what to fill in."""
    if not name.isidentifier():
        raise UserError(f"{name!r} can't be a backfill's name.", "Use letters, digits and underscores.")
    try:
        schema, relation = split_table(table)
    except ValueError as error:
        raise UserError(f"{error}.") from error
    params = DraftParams(table=table, partition_column=partition_column or None, unit=unit or None)
    with database_of(None) as conn:
        draft = Draft.of_table(name, params, read_table(conn, schema, relation))
    folder = project_defs(Path.cwd()) / name
    todo = draft.write(folder)
    say(
        f"Wrote {folder / 'defs.yaml'} and {folder / 'queries.sql'}.",
        "Fill in, in place of the table fill_in:",
    )
    say(*(f"  {line}" for line in todo), f"Then look for mistakes: backfills check {name}")
