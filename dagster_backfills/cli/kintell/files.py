"""The commands about files and rejected rows: `validate`, `errors`, `missing-users`."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import fsspec
import typer

from dagster_backfills.cli.database import database
from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.kintell import options
from dagster_backfills.cli.kintell.runs import file_config, find, preview_of_run, wait_for_run
from dagster_backfills.cli.kintell.show import show_preview
from dagster_backfills.cli.launch import launch
from dagster_backfills.cli.output import Json, print_json, print_table, say
from dagster_backfills.domains.kintell.after.error_file import stream_errors, write_error_file
from dagster_backfills.domains.kintell.file.dialect import ReadOptions
from dagster_backfills.domains.kintell.file.mapping import open_with_header


def errors(
    job: options.JobId,
    output: Annotated[str, typer.Option("--output", "-o", help="The file to write. Default: stdout.")] = "",
) -> None:
    """Write the rejected rows with their numbers and errors. Fix them and import the file again.

    Writes CSV, or a workbook with highlighted cells and suggestions if the output ends in .xlsx.
    """
    with database() as conn:
        import_job = find(conn, job)
        if not output:
            for text in stream_errors(conn, import_job):
                sys.stdout.write(text)
            return
        if output.lower().endswith(".xlsx"):
            # Only workbooks need openpyxl.
            from dagster_backfills.domains.kintell.after.error_workbook import write_error_workbook

            rows = write_error_workbook(conn, import_job, Path(output))
        else:
            rows = write_error_file(conn, import_job.id, options.absolute_location(output))
        say(f"{rows:,} rejected rows in {output}")


def validate(
    file: options.File,
    sheet: options.Sheet = "",
    encoding: options.Encoding = "",
    maps: options.Maps = None,
    on_duplicate: options.Duplicates = "skip",
    output: Annotated[
        str, typer.Option("--output", "-o", help="Write the rows that would be rejected to this file.")
    ] = "",
    json: Json = False,
) -> None:
    """Validate every row of a file and write nothing to the database."""
    config = {"dry_run": True} | file_config(file, on_duplicate, sheet, encoding, maps)
    run_id, code = launch("import_kintell_sessions", config, watch=wait_for_run)
    preview = preview_of_run(run_id)
    if code or preview is None:
        raise typer.Exit(code or FAILURES)
    if output:
        with (
            fsspec.open(preview["error_file"], "rb") as data,
            fsspec.open(options.absolute_location(output), "wb") as out,
        ):
            shutil.copyfileobj(data, out)
    if json:
        print_json(preview)
    else:
        show_preview(preview)
    raise typer.Exit(FAILURES if preview["failed"] else 0)


def missing_users(
    file: options.File,
    sheet: options.Sheet = "",
    encoding: options.Encoding = "",
    maps: options.Maps = None,
    json: Json = False,
) -> None:
    """List the addresses in a file that belong to no user."""
    # The file reader is slow to load.
    from dagster_backfills.defs.kintell.resources import KintellSettings
    from dagster_backfills.domains.kintell.file.register import preflight

    read_as = ReadOptions(**options.read_config(sheet, encoding, maps))
    with database() as conn:
        checks = preflight(
            conn, *open_with_header(conn, options.existing_location(file), KintellSettings().allowed, read_as)
        )
    if json:
        users = [{"email": email, "role": role} for email, role in checks.missing]
        print_json({"missing": checks.missing_count, "users": users})
        return
    if checks.missing:
        print_table(["email", "role"], checks.missing, ids=["email"])
    shown = f", the first {len(checks.missing):,} above" if checks.missing_count > len(checks.missing) else ""
    say(f"{checks.missing_count:,} users are missing{shown}.")
