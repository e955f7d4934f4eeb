"""Commands of `backfills queue`: enqueue, inspect, watch, cancel and retry background jobs."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from dagster_backfills.cli.database import database
from dagster_backfills.cli.output import (
    Json,
    Limit,
    Wide,
    Yes,
    confirm,
    duration,
    print_fields,
    print_json,
    print_table,
    say,
)
from dagster_backfills.cli.queue.arguments import parse_job_id, parse_object, parse_step
from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.registry import JobType, background_job_types, fields_of, known_hint
from dagster_backfills.errors import UserError

app = typer.Typer(
    no_args_is_help=True, help="Background jobs: enqueue, list, show, types, watch, cancel, retry, clean-up."
)
JobIds = Annotated[list[str], typer.Argument(metavar="ID…", help="Job IDs, or unique prefixes of them.")]
_DEFAULT_LIMIT = 1_000
STATUSES = ("pending", "processing", "completed", "failed", "cancelled")


@app.command()
def enqueue(
    job_type: Annotated[str, typer.Argument(metavar="TYPE", help="A type from `backfills queue types`.")],
    input_: Annotated[
        str, typer.Option("--input", help="The input as JSON; @FILE reads it from a file.")
    ] = "{}",
    priority: Annotated[int, typer.Option(min=1, max=10, help="1 is the highest.")] = 5,
    unique_key: Annotated[
        str, typer.Option(help="If a job of this type and key exists, print its ID instead.")
    ] = "",
    run_after: Annotated[datetime | None, typer.Option(help="Earliest start time (UTC).")] = None,
    max_retries: Annotated[int | None, typer.Option(min=0, help="Defaults to the type's value.")] = None,
    then: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE[=JSON]", help="A job to enqueue on completion, with its input. Repeatable."
        ),
    ] = None,
    user_id: Annotated[str, typer.Option(help="The user that the job belongs to.")] = "",
    company_id: Annotated[str, typer.Option(help="The company that the job belongs to.")] = "",
    training_id: Annotated[str, typer.Option(help="The training that the job belongs to.")] = "",
    json: Json = False,
) -> None:
    """Enqueue a job and print its ID."""
    input_data = parse_object(input_, "--input")
    with database() as conn:
        job_id = queue.enqueue(
            conn,
            job_type,
            input_data,
            priority=priority,
            run_after=run_after.replace(tzinfo=UTC) if run_after else None,
            unique_key=unique_key or None,
            max_retries=max_retries,
            owner=queue.Owner(user_id or None, company_id or None, training_id or None),
            then=[parse_step(step) for step in then or []],
        )
    print_json({"id": job_id}) if json else typer.echo(str(job_id))


@app.command("list")
def list_(
    status: Annotated[str, typer.Option(help=f"Only jobs with this status: {', '.join(STATUSES)}.")] = "",
    job_type: Annotated[str, typer.Option("--type", help="Only jobs of this type.")] = "",
    limit: Limit = None,
    wide: Wide = False,
    json: Json = False,
) -> None:
    """List jobs, newest first."""
    if status and status not in STATUSES:
        raise UserError(f"There is no status {status!r}.", known_hint(status, STATUSES))
    with database() as conn:
        queue.check_types(conn, [job_type] if job_type else [])
        jobs = queue.list_jobs(
            conn, limit or _DEFAULT_LIMIT, status=status or None, job_type=job_type or None
        )
    if json:
        print_json(jobs)
        return
    if not jobs:
        say("No jobs match.")
        return
    columns = ["id", "type", "status", "last error", "%", "retries", "took", "created", "priority"]
    print_table(columns, [_line(row) for row in jobs], limit=limit, ids=["id"], wide=wide)


@app.command()
def show(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job's ID.")], json: Json = False
) -> None:
    """Show all fields of a job, including its output and errors."""
    with database() as conn:
        (job,) = queue.rows(conn, "one_job", job_id=parse_job_id(conn, job_id))
    if json:
        print_json(job)
    else:
        print_fields(job.items())


@app.command()
def watch(
    until_done: Annotated[bool, typer.Option(help="Exit once no job is active.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of jobs shown.")] = 30,
) -> None:
    """Show live progress of active jobs until Ctrl-C; jobs are not affected. In a pipe: one line of JSON per change."""
    from dagster_backfills.cli.queue.watch import watch_jobs

    with database() as conn:
        watch_jobs(conn, until_done=until_done, limit=limit)


@app.command()
def cancel(
    ids: JobIds, reason: Annotated[str, typer.Option(help="Stored with the job.")] = "", yes: Yes = False
) -> None:
    """Cancel pending and processing jobs. Jobs that have ended are not changed."""
    confirm(f"Cancel {len(ids)} jobs?", yes or len(ids) == 1)
    not_cancelled = 0
    with database() as conn:
        for job_id in [parse_job_id(conn, each) for each in ids]:
            before = queue.cancel(conn, job_id, reason or None)
            if before in ("pending", "processing"):
                say(f"{job_id}: cancelled (it was {before}).")
            else:
                not_cancelled += 1
                say(f"{job_id}: {'there is no such job' if before is None else f'it is already {before}'}.")
    raise typer.Exit(1 if not_cancelled else 0)


@app.command()
def retry(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID…]", help="IDs of failed jobs.")] = None,
    job_type: Annotated[str, typer.Option("--type", help="Retry all failed jobs of this type.")] = "",
    yes: Yes = False,
) -> None:
    """Retry failed jobs, by ID or all of a type. Their retry count is reset."""
    if bool(ids) == bool(job_type):
        raise UserError("Specify which failed jobs to retry.", "Pass their IDs, or a type with --type.")
    with database() as conn:
        queue.check_types(conn, [job_type] if job_type else [])
        if job_type:
            failed = queue.STATEMENTS.count_failed(conn, job_type=job_type)
            if not failed:
                say(f"No job of type {job_type} has failed.")
                return
            confirm(f"Retry {failed:,} failed jobs of type {job_type}?", yes)
        count = queue.retry(
            conn, ids=[parse_job_id(conn, i) for i in ids] if ids else None, job_type=job_type or None
        )
    say(f"{count:,} jobs queued again.")
    if ids and count < len(set(ids)):
        say(f"{len(set(ids)) - count} jobs have not failed and were not changed.")
        raise typer.Exit(1)


@app.command("clean-up")
def clean_up(
    days: Annotated[
        int | None,
        typer.Option(min=0, help="Minimum age in days. Defaults to jobs.queue_settings (30 unless changed)."),
    ] = None,
    yes: Yes = False,
) -> None:
    """Remove jobs that finished long ago, with their results."""
    with database() as conn:
        keep_days = queue.STATEMENTS.keep_days(conn) if days is None else days
        confirm(f"Remove jobs that finished more than {keep_days:g} days ago?", yes)
        removed = sum(queue.clean_up(conn, None if days is None else timedelta(days=days)))
    say(f"{removed:,} jobs removed.")


@app.command()
def types(
    register: Annotated[
        bool, typer.Option(help="Register the types of QUEUE_HANDLERS in the database. Requires its owner.")
    ] = False,
    wide: Wide = False,
    json: Json = False,
) -> None:
    """List job types with their fields. A type must be registered in the database before its jobs can be enqueued."""
    registry = background_job_types()
    with database() as conn:
        if register:
            for kind in registry:
                queue.register(conn, kind)
        registered = {row["job_type"]: row for row in queue.rows(conn, "known_types")}
    handled = {kind.name: kind for kind in registry}
    lines = [
        _type_line(name, handled.get(name), registered.get(name)) for name in sorted(handled | registered)
    ]
    print_json(lines) if json else print_table(
        list(lines[0]), [tuple(line.values()) for line in lines], wide=wide, fold=True
    )
    if missing := sorted(registered.keys() - handled.keys()):
        say(
            f"This environment has no handler for {', '.join(missing)}: workers that run in it fail such jobs.",
            "Set QUEUE_HANDLERS to the modules that define the handlers.",
        )
    say(*registry.problems.values())
    raise typer.Exit(1 if registry.problems else 0)


def _line(row: dict[str, Any]) -> tuple[Any, ...]:
    took = (row["completed_at"] or datetime.now(UTC)) - row["started_at"] if row["started_at"] else None
    error = row["last_error"] if row["status"] in ("failed", "pending") else None
    retries = f"{row['retry_count']}/{row['max_retries']}"
    return (
        row["id"], row["job_type"], row["status"], error, row["progress_percentage"], retries, duration(took),
        row["created_at"], row["priority"],
    )  # fmt: skip


def _type_line(name: str, kind: JobType | None, registered: dict[str, Any] | None) -> dict[str, Any]:
    """A type's handler here and its registration in the database. Optional fields have a question mark."""
    row = fields_of(kind) if kind else registered or {}
    required, fields = set(row["required_fields"]), row["input_fields"]
    outdated = (
        registered and kind and any(row[name] != registered[name] for name in ("input_fields", "max_retries"))
    )
    return {
        "type": name,
        "database": "not registered" if not registered else "outdated" if outdated else "registered",
        "fields": "any"
        if fields is None
        else ", ".join(f"{f}{'' if f in required else '?'}: {t or 'any'}" for f, t in fields.items()),
        "retries": row["max_retries"],
        "runs in": kind.isolation if kind else None,
        "handler": f"{kind.handler.__module__}.{kind.handler.__qualname__}" if kind else None,
    }
