"""`backfills new`, `check`, `triggers` and `catalog`: declarations as files, and what the database says of them."""

import warnings
from pathlib import Path
from typing import Annotated

import typer

from dagster_backfills.cli.database import database, database_of
from dagster_backfills.cli.errors import USAGE
from dagster_backfills.cli.output import say
from dagster_backfills.components.inspection import inspect
from dagster_backfills.components.loading import declared, declared_by_name, declared_folders, describe
from dagster_backfills.dagster.catalog import FILE
from dagster_backfills.dagster.cataloguing import as_text
from dagster_backfills.dagster.project import defs_to_write_in, project_defs
from dagster_backfills.engine.declared.draft import Draft, DraftParams
from dagster_backfills.engine.table.catalog import read_table
from dagster_backfills.engine.triggers import SourceTriggers, apply, remove
from dagster_backfills.errors import UserError
from dagster_backfills.names import the_one
from dagster_backfills.postgres.table_names import split_table


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
    if not (name.isascii() and name.isidentifier()):
        raise UserError(
            f"{name!r} can't be a backfill's name.", "Use letters (a to z), digits and underscores."
        )
    folder = defs_to_write_in(Path.cwd()) / name
    try:
        schema, relation = split_table(table)
    except ValueError as error:
        raise UserError(f"{error}.") from error
    params = DraftParams(table=table, partition_column=partition_column or None, unit=unit or None)
    with database_of(None) as conn:
        draft = Draft.of_table(name, params, read_table(conn, schema, relation))
    todo = draft.write(folder)
    say(
        f"Wrote {folder / 'defs.yaml'} and {folder / 'queries.sql'}.",
        "Fill in, in place of the table fill_in:",
        *(f"  {line}" for line in todo),
        f"Then look for mistakes: backfills check {name}",
    )


def check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Backfills; all of the project without any.")
    ] = None,
) -> None:
    """Say for each backfill whether its declaration is right; exit code 2 where one is not."""
    defs, mistakes = project_defs(Path.cwd()), 0
    folders = [_folder(name) for name in names or []] or declared_folders(defs)
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


def _folder(name: str) -> Path:
    """The folder of the declaration that is meant. Raises UserError where there is none."""
    there = declared_by_name(project_defs(Path.cwd()))
    return there[the_one(name, dict.fromkeys(there), "backfill")]


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


def triggers(
    name: Annotated[str, typer.Argument(help="The backfill.")],
    apply_: Annotated[bool, typer.Option("--apply", help="Make them, or make them anew.")] = False,
    remove_: Annotated[bool, typer.Option("--remove", help="Take them away without a trace.")] = False,
) -> None:
    """Print the DDL of the triggers that `stale_when` asks for; with --apply or --remove, run it."""
    if apply_ and remove_:
        raise UserError("--apply and --remove exclude each other.", "Give one of them.")
    backfill = declared(_folder(name))
    wanted = [SourceTriggers(table) for table in backfill.watched()]
    if not wanted:
        raise UserError(
            f"{backfill.name} asks for no triggers.", "`stale_when` names the source tables to be followed."
        )
    if backfill.declared.stale_by != "triggers" and not remove_:
        raise UserError(
            f"{backfill.name} needs no triggers: it looks at its sources.",
            "With `stale_by: triggers` it would.",
        )
    if not apply_ and not remove_:
        typer.echo("\n\n".join(each.create() for each in wanted))
        return
    with database_of(backfill.declared.database) as conn:
        (apply if apply_ else remove)(conn, wanted)
    sources = ", ".join(each.watched.source for each in wanted)
    say(f"{'Triggers tell of changes in' if apply_ else 'No trigger of it is left on'} {sources}.")


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
