"""`backfills kintell`: commands for the whole life of an import. Long operations are Dagster runs that they follow.

Here: the commands that take a job. Not here: those that take a file (`files`).
"""

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from dagster_backfills.cli.database import database
from dagster_backfills.cli.kintell import files, options
from dagster_backfills.cli.kintell.runs import find_job, import_and_show, reload, wait_for_run
from dagster_backfills.cli.kintell.show import show_job, show_jobs
from dagster_backfills.cli.launch import launch
from dagster_backfills.cli.output import Json, Wide, Yes, confirm, print_json, say
from dagster_backfills.domains.kintell.after.error_file import stream_errors, write_error_file, write_file
from dagster_backfills.domains.kintell.importing.jobs import list_jobs, set_status

app = typer.Typer(no_args_is_help=True, help="Historical sessions from CSV files and workbooks.")


def errors(
    job: options.JobId,
    output: Annotated[str, typer.Option("--output", "-o", help="The file to write. Default: stdout.")] = "",
) -> None:
    """Write the rejected rows with their numbers and errors. Fix them and import the file again.

    Writes CSV, or a workbook with highlighted cells and suggestions if the output ends in .xlsx.
    """
    import_job = find_job(job)
    with database() as conn:
        if not output:
            for text in stream_errors(conn, import_job):
                sys.stdout.write(text)
            return
        if options.is_workbook(output):
            # Only workbooks need openpyxl.
            from dagster_backfills.domains.kintell.after.error_workbook import workbook_in_pieces

            write_file(options.absolute_location(output), workbook_in_pieces(conn, import_job))
        else:
            write_error_file(conn, import_job.id, options.absolute_location(output))
    say(f"{import_job.failed_rows:,} rejected rows in {output}")


def resume(
    job: options.JobId,
    batch_rows: options.BatchRows = 20_000,
    max_errors: options.MaxErrors = None,
    max_error_ratio: options.MaxRatio = None,
    create_missing_users: options.MakeUsers = False,
    rollback_on_failure: options.RollBack = False,
    json: Json = False,
) -> None:
    """Start or resume a job that is pending, paused or failed, or whose worker is dead."""
    # The importer is slow to load, and most commands do not need it.
    from dagster_backfills.defs.kintell.config import import_config
    from dagster_backfills.defs.kintell.resources import KintellSettings
    from dagster_backfills.domains.kintell.file.register import open_unchanged

    config = import_config(
        batch_rows=batch_rows,
        max_errors=max_errors,
        max_error_ratio=max_error_ratio,
        create_missing_users=create_missing_users,
        rollback_on_failure=rollback_on_failure,
    )
    import_job = find_job(job, "import")
    open_unchanged(import_job, KintellSettings().allowed)
    import_and_show(import_job, config, json)


def status(
    job: Annotated[str, typer.Argument(metavar="[JOB]", help="Show one job. Default: list the newest.")] = "",
    most: Annotated[int, typer.Option(min=1, help="How many jobs.")] = 20,
    wide: Wide = False,
    json: Json = False,
) -> None:
    """List the jobs, newest first, with their progress and rejected rows."""
    if job:
        show_job(find_job(job), json)
        return
    with database() as conn:
        jobs = list_jobs(conn, most)
    show_jobs(jobs, json, wide)


def pause(job: options.JobId, json: Json = False) -> None:
    """Stop a running job immediately. `resume` continues it."""
    _set_status(job, "pause", json)


def cancel(job: options.JobId, json: Json = False) -> None:
    """Stop a job for good. Imported sessions stay unless the job is rolled back."""
    _set_status(job, "cancel", json)


def _set_status(job: str, verb: str, json: bool) -> None:
    import_job = find_job(job)
    with database() as conn:
        changed = set_status(conn, import_job.id, verb)
    show_job(changed, json)


def replay(job: options.JobId, create_missing_users: options.MakeUsers = False, json: Json = False) -> None:
    """Import a job's rejected rows again, after their cause was fixed. The file is not needed."""
    before = find_job(job, "replay")
    config = {"job": str(before.id), "create_missing_users": create_missing_users}
    _, code = launch("replay_kintell_errors", config, watch=wait_for_run)
    after = reload(before)
    show_job(after, json)
    say(
        f"{before.failed_rows - after.failed_rows:,} of {before.failed_rows:,} rejected rows were imported, "
        f"{after.failed_rows:,} are still rejected."
    )
    if after.failed_rows:
        say(f"To see the errors: backfills kintell errors {after.id} -o FILE")
    raise typer.Exit(code)


def rollback(
    job: options.JobId,
    execute: Annotated[
        bool, typer.Option("--execute/--dry-run", help="Roll back, or only show what would happen.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove sessions a job inserted, restore those it updated, keep those edited since. Dry run unless --execute."""
    # The rollback imports the importer, which is slow to load.
    from dagster_backfills.domains.kintell.after.rollback import preview_rollback

    import_job = find_job(job, "rollback")
    with database() as conn:
        preview = preview_rollback(conn, import_job.id)
    say(f"{preview} because they were edited since.", *(f"kept: {session}" for session in preview.kept))
    if not execute:
        say("Dry run: nothing was changed. To roll the import back, add --execute.")
        if json:
            print_json({**asdict(preview), "dry_run": True})
        return
    confirm(f"Roll back job {import_job.id}?", yes)
    config = {"job": str(import_job.id), "dry_run": False}
    _, code = launch("rollback_kintell_import", config, watch=wait_for_run)
    show_job(reload(import_job), json)
    raise typer.Exit(code)


for command in (
    *(files.validate, errors, files.missing_users, files.start),
    *(resume, status, pause, cancel, replay, rollback, files.template),
):
    app.command()(command)
