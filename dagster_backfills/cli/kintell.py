"""`backfills kintell`: an import's whole life. Thin: what takes time is a Dagster run that is started and followed."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

import typer

from dagster_backfills.cli.domain_runs import database, launch
from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.kintell_options import (
    BatchRows,
    Duplicates,
    File,
    JobId,
    Json,
    MakeUsers,
    MaxErrors,
    MaxRatio,
    RollBack,
    limits,
    one_of,
    place,
)
from dagster_backfills.cli.kintell_runs import copy, find_job, import_and_show, readable, show, waiting
from dagster_backfills.cli.kintell_show import show_jobs, show_verdict
from dagster_backfills.cli.kintell_watch import verdict_of
from dagster_backfills.cli.output import confirm, print_json, print_table, say
from dagster_backfills.domains.kintell.after.error_file import stream_errors, write_error_file
from dagster_backfills.domains.kintell.file.header import KNOWN
from dagster_backfills.domains.kintell.importing.account import list_jobs, load_job, set_status

app = typer.Typer(no_args_is_help=True, help="Historical sessions from CSV files.")


@app.command()
def start(
    file: File,
    on_duplicate: Duplicates = "skip",
    batch_rows: BatchRows = 20_000,
    max_errors: MaxErrors = None,
    max_error_ratio: MaxRatio = None,
    create_missing_users: MakeUsers = False,
    rollback_on_failure: RollBack = False,
    json: Json = False,
) -> None:
    """Import a file. One that was begun before goes on where it stopped."""
    config = limits(batch_rows, max_errors, max_error_ratio, create_missing_users, rollback_on_failure)
    config |= {"file": readable(place(file)), "on_duplicate": one_of(on_duplicate)}
    import_and_show(config, json)


@app.command()
def resume(
    job: JobId,
    batch_rows: BatchRows = 20_000,
    max_errors: MaxErrors = None,
    max_error_ratio: MaxRatio = None,
    create_missing_users: MakeUsers = False,
    rollback_on_failure: RollBack = False,
    json: Json = False,
) -> None:
    """Start or continue a job that is pending, paused, failed, or whose worker is dead."""
    config = limits(batch_rows, max_errors, max_error_ratio, create_missing_users, rollback_on_failure)
    found = find_job(job, "import")
    readable(found.file_url, found)
    import_and_show({"job": str(found.id), **config}, json)


@app.command()
def status(
    job: Annotated[str, typer.Argument(metavar="[JOB]", help="One job; the newest without it.")] = "",
    most: Annotated[int, typer.Option(help="How many jobs.")] = 20,
    json: Json = False,
) -> None:
    """The jobs, newest first: how far, how many rows, how many rejected."""
    if job:
        show(find_job(job), json)
        return
    with database() as conn:
        jobs = list_jobs(conn, most)
    show_jobs(jobs, json)


@app.command()
def errors(
    job: JobId,
    output: Annotated[str, typer.Option("--output", "-o", help="The file to write; stdout without it.")] = "",
) -> None:
    """The rejected rows as CSV, each with its number and what is wrong: fix them and send the file in again."""
    with database() as conn:
        found = load_job(conn, job)
        if output:
            rows = write_error_file(conn, found.id, place(output))
            say(f"{rows:,} rejected rows in {output}")
            return
        for text in stream_errors(conn, found):
            sys.stdout.write(text)


@app.command()
def validate(
    file: File,
    on_duplicate: Duplicates = "skip",
    output: Annotated[
        str, typer.Option("--output", "-o", help="Write the rows that would be rejected here.")
    ] = "",
    json: Json = False,
) -> None:
    """Judge every row of a file and write nothing to the database."""
    config = {"file": readable(place(file)), "on_duplicate": one_of(on_duplicate), "dry_run": True}
    seen: dict[str, str] = {}

    def watch(run_id: str, ended: Callable[[], bool]) -> None:
        seen["run"] = run_id
        waiting(run_id, ended)

    _, code = launch("import_kintell_sessions", config, watch=watch)
    verdict = verdict_of(seen["run"])
    if code or verdict is None:
        raise typer.Exit(code or FAILURES)
    if output:
        copy(verdict["error_file"], place(output))
    if json:
        print_json(verdict)
    else:
        show_verdict(verdict)
    raise typer.Exit(FAILURES if verdict["failed"] else 0)


@app.command()
def pause(job: JobId, json: Json = False) -> None:
    """Stop a running job at once; `resume` goes on."""
    _set_status(job, "pause", json)


@app.command()
def cancel(job: JobId, json: Json = False) -> None:
    """Stop a job for good. What it has imported stays, until it is rolled back."""
    _set_status(job, "cancel", json)


@app.command()
def replay(job: JobId, create_missing_users: MakeUsers = False, json: Json = False) -> None:
    """Try a job's rejected rows again, after their cause was removed. No file is needed."""
    found = find_job(job, "replay")
    config = {"job": str(found.id), "create_missing_users": create_missing_users}
    _, code = launch("replay_kintell_errors", {"ops": {"replay_errors": {"config": config}}}, watch=waiting)
    show(find_job(job), json)
    raise typer.Exit(code)


@app.command()
def rollback(
    job: JobId,
    execute: Annotated[
        bool, typer.Option("--execute/--dry-run", help="Roll the import back, or only say what would happen.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove what a job inserted, restore what it rewrote, keep what was edited since. A dry run unless --execute."""
    # The importer's parts come with it, which the other commands need not load.
    from dagster_backfills.domains.kintell.after.rollback import preview_rollback

    found = find_job(job, "rollback")
    with database() as conn:
        preview = preview_rollback(conn, found.id)
    counts = f"{preview.removes:,} sessions to remove, {preview.restores:,} to restore, {preview.keeps:,} to keep, "
    say(f"{counts}because they were edited since.", *(f"kept: {session}" for session in preview.kept))
    if not execute:
        say("A dry run: nothing was changed. To roll the import back, add --execute.")
        if json:
            print_json({**asdict(preview), "dry_run": True})
        return
    confirm(f"Roll back job {found.id}?", yes)
    config = {"job": str(found.id), "dry_run": False}
    _, code = launch(
        "rollback_kintell_import", {"ops": {"roll_back_sessions": {"config": config}}}, watch=waiting
    )
    show(find_job(job), json)
    raise typer.Exit(code)


@app.command("missing-users")
def missing_users(file: File, json: Json = False) -> None:
    """The addresses of a file that belong to no user."""
    # What reads files is loaded here, for the same reason.
    from dagster_backfills.defs.kintell.resources import KintellSettings
    from dagster_backfills.domains.kintell.file.files import open_file
    from dagster_backfills.domains.kintell.file.reader import read_header
    from dagster_backfills.domains.kintell.file.register import preflight

    with database() as conn:
        source = open_file(place(file), KintellSettings().allowed)
        found = preflight(conn, source, read_header(source))
    if json:
        users = [{"email": email, "role": role} for email, role in found.missing]
        print_json({"missing": found.missing_count, "users": users})
        return
    if found.missing:
        print_table(["email", "role"], found.missing)
    shown = f", the first {len(found.missing):,} above" if found.missing_count > len(found.missing) else ""
    say(f"{found.missing_count:,} users are missing{shown}.")


@app.command()
def template() -> None:
    """An example file, to begin with."""
    typer.echo(",".join(KNOWN))
    typer.echo(
        "KS-0001,Language Connect,participant@example.com,volunteer@example.com,2024-01-15T10:00:00Z,60,5,"
        '"Good progress, ""very"" motivated",B1'
    )
    typer.echo("KS-0002,Mentorship,participant@example.com,volunteer@example.com,2024-01-22,45,,,")


def _set_status(job: str, verb: str, json: bool) -> None:
    with database() as conn:
        changed = set_status(conn, job, verb)
    show(changed, json)
