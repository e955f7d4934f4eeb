"""`backfills kintell`: an import's whole life. Thin: what takes time is a Dagster run that is started and followed."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dagster_backfills.cli.domain_runs import database
from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.kintell_show import show_job, show_jobs
from dagster_backfills.cli.output import confirm, print_json, print_table, say
from dagster_backfills.lib.errors import UserError

if TYPE_CHECKING:
    from dagster_backfills.defs.kintell.account import Job

app = typer.Typer(no_args_is_help=True, help="Historical sessions from CSV files.")
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as `status` shows it.")]
File = Annotated[
    str, typer.Argument(metavar="FILE", help="A CSV: a path, or an fsspec URL (s3://…, gs://…).")
]
Duplicates = Annotated[
    str, typer.Option("--on-duplicate", help="A session that is there already: skip, update or error.")
]
BatchRows = Annotated[int, typer.Option(help="Rows a transaction.")]
MaxErrors = Annotated[int | None, typer.Option(help="Stop when more rows than this are rejected.")]
MaxRatio = Annotated[
    float | None, typer.Option(help="Stop when a larger share of the rows is rejected: 0.05 is 5 %.")
]
MakeUsers = Annotated[bool, typer.Option("--create-missing-users", help="Make users for unknown addresses.")]
Undo = Annotated[
    bool, typer.Option("--undo-on-failure", help="Roll back what max-errors or max-error-ratio stopped.")
]


@app.command()
def start(
    file: File,
    on_duplicate: Duplicates = "skip",
    batch_rows: BatchRows = 20_000,
    max_errors: MaxErrors = None,
    max_error_ratio: MaxRatio = None,
    create_missing_users: MakeUsers = False,
    undo_on_failure: Undo = False,
    json: Json = False,
) -> None:
    """Import a file. One that was begun before goes on where it stopped."""
    config = _limits(batch_rows, max_errors, max_error_ratio, create_missing_users, undo_on_failure)
    _import({"file": _place(file), "on_duplicate": _one_of(on_duplicate), **config}, json)


@app.command()
def resume(
    job: JobId,
    batch_rows: BatchRows = 20_000,
    max_errors: MaxErrors = None,
    max_error_ratio: MaxRatio = None,
    create_missing_users: MakeUsers = False,
    undo_on_failure: Undo = False,
    json: Json = False,
) -> None:
    """Start or continue a job that is pending, paused, failed, or whose worker is dead."""
    config = _limits(batch_rows, max_errors, max_error_ratio, create_missing_users, undo_on_failure)
    _import({"job": str(_job(job).id), **config}, json)


@app.command()
def status(
    job: Annotated[str, typer.Argument(metavar="[JOB]", help="One job; the newest without it.")] = "",
    most: Annotated[int, typer.Option(help="How many jobs.")] = 20,
    json: Json = False,
) -> None:
    """The jobs, newest first: how far, how many rows, how many rejected."""
    from dagster_backfills.defs.kintell.account import list_jobs, load_job

    with database() as conn:
        jobs = [load_job(conn, job)] if job else list_jobs(conn, most)
    if job:
        show_job(jobs[0], json)
    else:
        show_jobs(jobs, json)


@app.command()
def errors(
    job: JobId,
    output: Annotated[str, typer.Option("--output", "-o", help="The file to write; stdout without it.")] = "",
) -> None:
    """The rejected rows as CSV, each with its number and what is wrong: fix them and send the file in again."""
    from dagster_backfills.defs.kintell.account import load_job
    from dagster_backfills.defs.kintell.error_file import stream_errors, write_error_file

    with database() as conn:
        found = load_job(conn, job)
        if output:
            rows = write_error_file(conn, found.id, _place(output))
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
    from dagster_backfills.cli.kintell_watch import verdict_of

    config = {"file": _place(file), "on_duplicate": _one_of(on_duplicate), "dry_run": True}
    seen: dict[str, str] = {}

    def watch(run_id: str, ended: Callable[[], bool]) -> None:
        seen["run"] = run_id
        _waiting(run_id, ended)

    code = _run("import_kintell_sessions", config, watch=watch)
    verdict = verdict_of(seen["run"])
    if code or verdict is None:
        raise typer.Exit(code or FAILURES)
    if output:
        _copy(verdict["error_file"], _place(output))
    if json:
        print_json(verdict)
    else:
        print_table(
            ["rows", "new", "duplicates", "would be rejected", "missing users"],
            [[verdict[name] for name in ("total", "new", "duplicates", "failed", "missing_users")]],
        )
        print_table(["error", "rows"], verdict["kinds"])
        print_table(["row", "error"], verdict["errors"][:20], title="the first of them")
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
    found = _job(job)
    config = {"job": str(found.id), "create_missing_users": create_missing_users}
    code = _run("replay_kintell_errors", {"ops": {"replay_errors": {"config": config}}}, watch=_waiting)
    show_job(_job(job), json)
    raise typer.Exit(code)


@app.command()
def rollback(
    job: JobId,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove what a job inserted, restore what it rewrote, keep what was edited since."""
    from dagster_backfills.defs.kintell.undo import preview_rollback

    found = _job(job)
    with database() as conn:
        preview = preview_rollback(conn, found.id)
    if dry_run:
        if json:
            print_json(asdict(preview))
        else:
            print_table(
                ["removes", "restores", "keeps"], [(preview.removes, preview.restores, preview.keeps)]
            )
            for session in preview.kept:
                say(f"kept, edited since: {session}")
        return
    confirm(
        f"Remove {preview.removes:,} sessions, restore {preview.restores:,} and keep {preview.keeps:,} that were "
        "edited since?",
        yes,
    )
    config = {"job": str(found.id)}
    code = _run(
        "rollback_kintell_import", {"ops": {"roll_back_sessions": {"config": config}}}, watch=_waiting
    )
    show_job(_job(job), json)
    raise typer.Exit(code)


@app.command("missing-users")
def missing_users(file: File, json: Json = False) -> None:
    """The addresses of a file that belong to no user."""
    from dagster_backfills.defs.kintell.files import open_file
    from dagster_backfills.defs.kintell.reader import read_header
    from dagster_backfills.defs.kintell.register import preflight
    from dagster_backfills.defs.kintell.resources import KintellSettings

    with database() as conn:
        source = open_file(_place(file), KintellSettings().allowed)
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
    from dagster_backfills.defs.kintell.reader import KNOWN

    typer.echo(",".join(KNOWN))
    typer.echo(
        "KS-0001,Language Connect,participant@example.com,volunteer@example.com,2024-01-15T10:00:00Z,60,5,"
        '"Good progress, ""very"" motivated",B1'
    )
    typer.echo("KS-0002,Mentorship,participant@example.com,volunteer@example.com,2024-01-22,45,,,")


def _limits(
    batch_rows: int, max_errors: int | None, ratio: float | None, make_users: bool, undo: bool
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "batch_rows": batch_rows,
        "create_missing_users": make_users,
        "undo_on_failure": undo,
    }
    given = {"max_errors": max_errors, "max_error_ratio": ratio}
    return config | {name: value for name, value in given.items() if value is not None}


def _one_of(on_duplicate: str) -> str:
    if on_duplicate not in ("skip", "update", "error"):
        raise UserError(f"There is no --on-duplicate {on_duplicate}.", "Choose skip, update or error.")
    return on_duplicate


def _place(file: str) -> str:
    """Paths are the person's, URLs everyone's: the run works elsewhere."""
    return file if "://" in file else str(Path(file).expanduser().absolute())


def _job(job: str) -> "Job":
    from dagster_backfills.defs.kintell.account import load_job

    with database() as conn:
        return load_job(conn, job)


def _import(config: dict[str, Any], json: bool) -> None:
    from dagster_backfills.cli.kintell_watch import newest_job_of_run, watch_import

    seen: dict[str, str] = {}

    def watch(run_id: str, ended: Callable[[], bool]) -> None:
        seen["run"] = run_id
        watch_import(run_id, ended)

    code = _run("import_kintell_sessions", config, watch=watch)
    with database() as conn:
        job = newest_job_of_run(conn, seen["run"], config.get("job"), config.get("file"))
    if job is None:
        raise typer.Exit(code)
    show_job(job, json)
    if job.failed_rows and not json:
        say(f"{job.failed_rows:,} rows were rejected: backfills kintell errors {job.id} -o FILE")
    raise typer.Exit(code or (FAILURES if job.failed_rows or job.status != "completed" else 0))


def _copy(source: str, target: str) -> None:
    import shutil

    import fsspec

    with fsspec.open(source, "rb") as data, fsspec.open(target, "wb") as out:
        shutil.copyfileobj(data, out)


def _waiting(run_id: str, ended: Callable[[], bool]) -> None:
    import time

    say(f"Run {run_id}")
    while not ended():
        time.sleep(0.2)


def _run(job: str, config: Mapping[str, Any], watch: Callable[[str, Callable[[], bool]], object]) -> int:
    from dagster_backfills.cli.launch import exit_code, run_job

    run = run_job(job, config, watch=watch)
    code = exit_code(run)
    if code:
        from dagster_backfills.cli.kintell_watch import say_why

        say_why(run.run_id)
    return code


def _set_status(job: str, verb: str, json: bool) -> None:
    from dagster_backfills.defs.kintell.account import set_status

    with database() as conn:
        show_job(set_status(conn, job, verb), json)
