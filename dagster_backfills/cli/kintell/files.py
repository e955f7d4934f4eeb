"""What is asked of a file, and of the rows of it that were rejected: `validate`, `errors`, `missing-users`."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import fsspec
import typer

from dagster_backfills.cli.database import database
from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.kintell import options
from dagster_backfills.cli.kintell.runs import find, readable, verdict_of, waiting
from dagster_backfills.cli.kintell.show import show_verdict
from dagster_backfills.cli.launch import launch
from dagster_backfills.cli.output import Json, print_json, print_table, say
from dagster_backfills.domains.kintell.after.error_file import stream_errors, write_error_file
from dagster_backfills.domains.kintell.file.dialect import ReadAs
from dagster_backfills.domains.kintell.file.mapping import opened


def errors(
    job: options.JobId,
    output: Annotated[str, typer.Option("--output", "-o", help="The file to write; stdout without it.")] = "",
) -> None:
    """The rejected rows, each with its number and what is wrong: fix them and send the file in again.

    CSV, or with an output that ends in .xlsx a workbook: failing cells marked, and what may have been meant.
    """
    with database() as conn:
        found = find(conn, job)
        if not output:
            for text in stream_errors(conn, found):
                sys.stdout.write(text)
            return
        if output.lower().endswith(".xlsx"):
            # openpyxl is loaded for whoever wants a workbook.
            from dagster_backfills.domains.kintell.after.error_workbook import write_error_workbook

            rows = write_error_workbook(conn, found, Path(output))
        else:
            rows = write_error_file(conn, found.id, options.place(output))
        say(f"{rows:,} rejected rows in {output}")


def validate(
    file: options.File,
    sheet: options.Sheet = "",
    encoding: options.Encoding = "",
    maps: options.Maps = None,
    on_duplicate: options.Duplicates = "skip",
    output: Annotated[
        str, typer.Option("--output", "-o", help="Write the rows that would be rejected here.")
    ] = "",
    json: Json = False,
) -> None:
    """Judge every row of a file and write nothing to the database."""
    config = {"dry_run": True} | readable(file, on_duplicate, sheet, encoding, maps)
    run_id, code = launch("import_kintell_sessions", config, watch=waiting)
    verdict = verdict_of(run_id)
    if code or verdict is None:
        raise typer.Exit(code or FAILURES)
    if output:
        with (
            fsspec.open(verdict["error_file"], "rb") as data,
            fsspec.open(options.place(output), "wb") as out,
        ):
            shutil.copyfileobj(data, out)
    if json:
        print_json(verdict)
    else:
        show_verdict(verdict)
    raise typer.Exit(FAILURES if verdict["failed"] else 0)


def missing_users(
    file: options.File,
    sheet: options.Sheet = "",
    encoding: options.Encoding = "",
    maps: options.Maps = None,
    json: Json = False,
) -> None:
    """The addresses of a file that belong to no user."""
    # What reads files is loaded here, for the same reason.
    from dagster_backfills.defs.kintell.resources import KintellSettings
    from dagster_backfills.domains.kintell.file.register import preflight

    read_as = ReadAs(**options.reading(sheet, encoding, maps))
    with database() as conn:
        found = preflight(conn, *opened(conn, options.there(file), KintellSettings().allowed, read_as))
    if json:
        users = [{"email": email, "role": role} for email, role in found.missing]
        print_json({"missing": found.missing_count, "users": users})
        return
    if found.missing:
        print_table(["email", "role"], found.missing, ids=["email"])
    shown = f", the first {len(found.missing):,} above" if found.missing_count > len(found.missing) else ""
    say(f"{found.missing_count:,} users are missing{shown}.")
