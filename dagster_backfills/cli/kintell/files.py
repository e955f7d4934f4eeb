"""The commands that take a file: `start`, `validate`, `missing-users`, `template`.

The modules that read files are imported inside the commands, because they are slow to load.
"""

from typing import Annotated

import typer

from dagster_backfills.cli.database import database
from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.kintell import options
from dagster_backfills.cli.kintell.runs import import_and_show
from dagster_backfills.cli.kintell.show import show_preview
from dagster_backfills.cli.output import Json, print_json, print_table, say
from dagster_backfills.domains.kintell.file.columns import KNOWN
from dagster_backfills.domains.kintell.file.files import open_file
from dagster_backfills.domains.kintell.file.header import open_table
from dagster_backfills.domains.kintell.importing.jobs import load_job
from dagster_backfills.errors import UserError

LISTED = 1000


def start(
    file: options.File,
    sheet: options.Sheet = "",
    encoding: options.Encoding = "",
    maps: options.Maps = None,
    on_duplicate: options.Duplicates = "skip",
    batch_rows: options.BatchRows = 20_000,
    max_errors: options.MaxErrors = None,
    max_error_ratio: options.MaxRatio = None,
    create_missing_users: options.MakeUsers = False,
    rollback_on_failure: options.RollBack = False,
    json: Json = False,
) -> None:
    """Import a file. An unfinished import of the same file is resumed."""
    from dagster_backfills.defs.kintell.config import import_config
    from dagster_backfills.defs.kintell.resources import KintellSettings
    from dagster_backfills.domains.kintell.file.register import register

    config = import_config(
        batch_rows=batch_rows,
        max_errors=max_errors,
        max_error_ratio=max_error_ratio,
        create_missing_users=create_missing_users,
        rollback_on_failure=rollback_on_failure,
    )
    read = options.read_options(file, on_duplicate, sheet, encoding, maps)
    with database() as conn:
        registered = register(conn, allowed=KintellSettings().allowed, **read)
        job, missing = load_job(conn, registered.job), registered.preflight.missing
    say(f"Recognized: {job.recognized}")
    if missing and not create_missing_users:
        say(f"{len(missing):,} users are missing; their rows will be rejected.")
    import_and_show(job, config, json)


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
    from dagster_backfills.defs.kintell.resources import KintellSettings
    from dagster_backfills.domains.kintell.rows.dry_run import validate

    if options.is_workbook(output):
        raise UserError(
            "`validate` writes CSV.", "Name the output .csv. `backfills kintell errors` writes workbooks."
        )
    read = options.read_options(file, on_duplicate, sheet, encoding, maps)
    rejected = options.absolute_location(output) if output else ""
    with database() as conn:
        preview = validate(conn, allowed=KintellSettings().allowed, error_file=rejected, **read)
    if json:
        print_json(preview.plain() | {"error_file": rejected or None})
    else:
        say(f"Recognized: {preview.recognized}")
        show_preview(preview)
    raise typer.Exit(FAILURES if preview.failed else 0)


def missing_users(
    file: options.File,
    sheet: options.Sheet = "",
    encoding: options.Encoding = "",
    maps: options.Maps = None,
    json: Json = False,
) -> None:
    """List the addresses in a file that belong to no user."""
    from dagster_backfills.defs.kintell.resources import KintellSettings
    from dagster_backfills.domains.kintell.file.register import preflight

    read = options.read_options(file, "skip", sheet, encoding, maps)
    with database() as conn:
        source = open_file(read["url"], KintellSettings().allowed)
        missing = preflight(conn, *open_table(conn, source, read["read_as"])).missing
    listed = missing[:LISTED]
    if json:
        users = [{"email": email, "role": role} for email, role in listed]
        print_json({"missing": len(missing), "users": users})
        return
    if listed:
        print_table(["email", "role"], listed, ids=["email"])
    shown = f", the first {LISTED:,} above" if len(missing) > LISTED else ""
    say(f"{len(missing):,} users are missing{shown}.")


def template() -> None:
    """Print an example file."""
    typer.echo(",".join(KNOWN))
    typer.echo(
        "KS-0001,Language Connect,participant@example.com,volunteer@example.com,2024-01-15T10:00:00Z,60,5,"
        '"Good progress, ""very"" motivated",B1'
    )
    typer.echo("KS-0002,Mentorship,participant@example.com,volunteer@example.com,2024-01-22,45,,,")
