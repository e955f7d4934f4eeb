"""`backfills new`, `check`, `triggers` and `catalog`: writing declarations and comparing them with the database."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from dagster_backfills.cli.database import database, database_of
from dagster_backfills.cli.errors import USAGE
from dagster_backfills.cli.output import say
from dagster_backfills.components.cataloguing import describe
from dagster_backfills.components.inspection import inspect
from dagster_backfills.components.loading import declared, declared_by_name, declared_folders
from dagster_backfills.components.postgres_backfill import accepted_definitions
from dagster_backfills.dagster.catalog import FILE
from dagster_backfills.dagster.cataloguing import as_text
from dagster_backfills.dagster.project import defs_to_write_in, project_defs
from dagster_backfills.engine.declared.draft import Draft, DraftParams
from dagster_backfills.engine.table.catalog import read_table
from dagster_backfills.engine.triggers import SourceTriggers, apply, remove
from dagster_backfills.errors import UserError
from dagster_backfills.names import counted, first_few, resolve_id
from dagster_backfills.postgres.table_names import split_table
from dagster_backfills.redact import redact


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the backfill and of its folder.")],
    table: Annotated[str, typer.Option(help='The table to fill: schema.table, or schema."Table".')],
    partition_column: Annotated[
        str, typer.Option(help="The table's partition column, if it is to be partitioned.")
    ] = "",
    unit: Annotated[
        str, typer.Option(help="The column that identifies a unit within a partition, such as a member's ID.")
    ] = "",
) -> None:
    """Draft the defs.yaml and queries.sql of a backfill for an existing table, and list what is left to fill in."""
    if not (name.isascii() and name.isidentifier()):
        raise UserError(
            f"{name!r} is not a valid backfill name.", "Use letters (a to z), digits and underscores."
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
        "Replace the table fill_in by filling in:",
        *(f"  {line}" for line in todo),
        f"Then check it: backfills check {name}",
    )


def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]", help="Backfills to check. Default: all in the project."),
    ] = None,
) -> None:
    """Check each backfill's declaration. Exits with 2 if one has a mistake."""
    defs, mistakes = project_defs(Path.cwd()), 0
    folders = [_folder(name) for name in names or []] or declared_folders(defs)
    if not folders:
        raise UserError(
            f"No backfill is declared in {defs}.", "Create one: backfills new NAME --table schema.table"
        )
    for folder in folders:
        try:
            missing = missing_triggers(folder)
            create = f"backfills triggers {declared(folder).name}"
            remark = f", but triggers are missing on {', '.join(missing)}: {create}"
            say(f"{folder.name}: ok{remark if missing else ''}")
            say(*_left_behind(folder))
        except UserError as error:
            mistakes += 1
            say(f"{folder.name}: {redact(str(error))}")
    if mistakes:
        raise typer.Exit(USAGE)


def _folder(name: str) -> Path:
    """The folder of a declaration, found by name or prefix. Raises UserError if there is none."""
    folders = declared_by_name(project_defs(Path.cwd()))
    return folders[resolve_id(name, dict.fromkeys(folders), "backfill")]


def missing_triggers(folder: Path) -> list[str]:
    """Check a declaration; return the source tables that lack their triggers. Raises UserError if it has a mistake."""
    backfill = declared(folder)
    with warnings.catch_warnings():  # Dagster's warnings about beta features
        warnings.simplefilter("ignore")
        accepted_definitions(backfill)
    with database_of(backfill.declared.database) as conn:
        inspect(backfill, conn)
        watched = backfill.watched() if backfill.declared.stale_by == "triggers" else []
        return [each.source for each in watched if not SourceTriggers(each).present(conn)]


def _left_behind(folder: Path) -> Iterator[str]:
    """A remark if former partitions of a backfill have rows."""
    backfill = declared(folder)
    with database_of(backfill.declared.database) as conn:
        keys = backfill.left_behind(conn)
    if keys:
        former = f"{counted(len(keys), 'former partition')} with rows that no run will change"
        yield f"{folder.name}: {former}: {first_few(keys)}"


def triggers(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The backfill's name, as in `backfills list`.")],
    apply_: Annotated[bool, typer.Option("--apply", help="Create or replace the triggers.")] = False,
    remove_: Annotated[bool, typer.Option("--remove", help="Drop the triggers and their functions.")] = False,
) -> None:
    """Print the DDL of the triggers for `stale_when`. With --apply or --remove, create or drop them."""
    if apply_ and remove_:
        raise UserError("--apply and --remove can't be used together.", "Use one of them.")
    backfill = declared(_folder(name))
    source_triggers = [SourceTriggers(table) for table in backfill.watched()]
    if not source_triggers:
        raise UserError(
            f"{backfill.name} has no `stale_when`.", "`stale_when` names the source tables to track."
        )
    if backfill.declared.stale_by != "triggers" and not remove_:
        raise UserError(
            f"{backfill.name} needs no triggers: it polls its source tables.",
            "To use triggers, set `stale_by: triggers`.",
        )
    if not apply_ and not remove_:
        typer.echo("\n\n".join(each.create() for each in source_triggers))
        return
    with database_of(backfill.declared.database) as conn:
        (apply if apply_ else remove)(conn, source_triggers)
    sources = ", ".join(each.watched.source for each in source_triggers)
    say(f"Triggers {'created' if apply_ else 'removed'} on {sources}.")


def catalog(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing. Exit with 2 if the file is out of date.")
    ] = False,
) -> None:
    """Write `catalog.json`: tables, columns, comments and column lineage for Dagster's catalog."""
    folder = project_defs(Path.cwd())
    with database() as conn, warnings.catch_warnings():  # Dagster's warnings about beta features
        warnings.simplefilter("ignore")
        described = describe(conn, folder)
    file, text = folder / FILE, as_text(described)
    if file.is_file() and file.read_text(encoding="utf-8") == text:
        say(f"{file} is up to date: {len(described)} tables.")
        return
    if check:
        raise UserError(f"{file} does not match the database.", hint="Regenerate it: backfills catalog")
    file.write_text(text, encoding="utf-8")
    say(f"Wrote {file}: {len(described)} tables.")
