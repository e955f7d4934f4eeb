"""`backfills queue`: put background jobs in, look at them, watch, cancel and retry them."""

import json as json_module
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
from dagster_backfills.cli.queue.given import job_id_of, object_of, require_type, step_of
from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.registry import JobType, background_job_types, fields_of, known_hint
from dagster_backfills.errors import UserError

app = typer.Typer(
    no_args_is_help=True, help="Background jobs: enqueue, list, show, types, watch, cancel, retry, clean-up."
)
JobIds = Annotated[list[str], typer.Argument(metavar="ID…", help="The jobs' ids, or how each begins.")]
_MOST = 1_000  # that are asked of the database, where nobody says how many
STATUSES = ("pending", "processing", "completed", "failed", "cancelled")


@app.command()
def enqueue(
    job_type: Annotated[str, typer.Argument(metavar="TYPE", help="One of `backfills queue types`.")],
    input_: Annotated[
        str, typer.Option("--input", help="The input as JSON; @FILE reads it from a file.")
    ] = "{}",
    priority: Annotated[int, typer.Option(min=1, max=10, help="1 goes first.")] = 5,
    unique_key: Annotated[str, typer.Option(help="A second job of the type with this key is not made.")] = "",
    run_after: Annotated[datetime | None, typer.Option(help="Not before this time (UTC).")] = None,
    max_retries: Annotated[int | None, typer.Option(min=0, help="As the type says, if left out.")] = None,
    then: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE[=JSON]", help="What follows on completion, with its input; may be repeated."
        ),
    ] = None,
    user_id: Annotated[str, typer.Option(help="Whose job it is.")] = "",
    company_id: Annotated[str, typer.Option(help="Whose job it is.")] = "",
    training_id: Annotated[str, typer.Option(help="What it belongs to.")] = "",
    json: Json = False,
) -> None:
    """Put one job in and print its id."""
    given = object_of(input_, "--input")
    with database() as conn:
        job_id = queue.enqueue(
            conn,
            job_type,
            given,
            priority=priority,
            run_after=run_after.replace(tzinfo=UTC) if run_after else None,
            unique_key=unique_key or None,
            max_retries=max_retries,
            owner=queue.Owner(user_id or None, company_id or None, training_id or None),
            then=[step_of(step) for step in then or []],
        )
    print_json({"id": job_id}) if json else typer.echo(str(job_id))


@app.command("list")
def list_(
    status: Annotated[str, typer.Option(help=f"Only these: {', '.join(STATUSES)}.")] = "",
    job_type: Annotated[str, typer.Option("--type", help="Only this type.")] = "",
    limit: Limit = None,
    wide: Wide = False,
    json: Json = False,
) -> None:
    """The newest jobs first."""
    if status and status not in STATUSES:
        raise UserError(f"There is no status {status!r}.", known_hint(status, STATUSES))
    with database() as conn:
        require_type(conn, job_type)
        found = queue.some_jobs(conn, limit or _MOST, status=status or None, job_type=job_type or None)
    if json:
        print_json(found)
        return
    if not found:
        say("There are no such jobs.")
        return
    print_table(
        ["id", "type", "status", "%", "last error", "retries", "priority", "created", "took"],
        [_line(row) for row in found],
        limit=limit,
        ids=["id"],
        wide=wide,
    )


@app.command()
def show(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")], json: Json = False
) -> None:
    """Everything about one job, its output and its errors."""
    with database() as conn:
        (found,) = queue.rows(conn, "one_job", job_id=job_id_of(conn, job_id))
    if json:
        print_json(found)
    else:
        print_fields((name, _shown(value)) for name, value in found.items())


@app.command()
def watch(
    until_done: Annotated[bool, typer.Option(help="End when no job is active any more.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many jobs at once.")] = 30,
) -> None:
    """The live progress of all active jobs. Ctrl-C ends it, and no job. In a pipe: one line of JSON a change."""
    from dagster_backfills.cli.queue.watch import watch_jobs

    with database() as conn:
        watch_jobs(conn, until_done=until_done, limit=limit)


@app.command()
def cancel(
    ids: JobIds, reason: Annotated[str, typer.Option(help="Kept with the job.")] = "", yes: Yes = False
) -> None:
    """Cancel jobs that wait or are at work; those that have ended stay as they are."""
    confirm(f"Cancel {len(ids)} jobs?", yes or len(ids) == 1)
    untouched = 0
    with database() as conn:
        for job_id in [job_id_of(conn, each) for each in ids]:
            before = queue.cancel(conn, job_id, reason or None)
            if before in ("pending", "processing"):
                say(f"{job_id}: cancelled (it was {before}).")
            else:
                untouched += 1
                say(f"{job_id}: {'there is no such job' if before is None else f'it is {before} already'}.")
    raise typer.Exit(1 if untouched else 0)


@app.command()
def retry(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID…]", help="The failed jobs' ids.")] = None,
    job_type: Annotated[str, typer.Option("--type", help="All failed jobs of this type.")] = "",
    yes: Yes = False,
) -> None:
    """Try failed jobs once more, with all their retries anew: those named, or all of a type."""
    if bool(ids) == bool(job_type):
        raise UserError("Say which failed jobs to retry.", "Name their ids, or their type with --type.")
    with database() as conn:
        require_type(conn, job_type)
        if job_type:
            failed = queue.STATEMENTS.count_failed(conn, job_type=job_type)
            if not failed:
                say(f"No job of type {job_type} has failed.")
                return
            confirm(f"Retry {failed:,} failed jobs of type {job_type}?", yes)
        count = queue.retry(
            conn, ids=[job_id_of(conn, i) for i in ids] if ids else None, job_type=job_type or None
        )
    say(f"{count:,} jobs wait again.")
    if ids and count < len(set(ids)):
        say(f"{len(set(ids)) - count} of those named have not failed, and stay as they are.")
        raise typer.Exit(1)


@app.command("clean-up")
def clean_up(
    days: Annotated[
        int | None,
        typer.Option(min=0, help="Remove jobs that ended longer ago. Left out: as configured, 30."),
    ] = None,
    yes: Yes = False,
) -> None:
    """Remove jobs that ended long ago. Their results go with them."""
    confirm(f"Remove jobs that ended more than {30 if days is None else days} days ago?", yes)
    with database() as conn:
        removed = sum(queue.clean_up(conn, None if days is None else timedelta(days=days)))
    say(f"{removed:,} jobs removed.")


@app.command()
def types(
    register: Annotated[
        bool, typer.Option(help="Tell the database of the types of QUEUE_HANDLERS, as its owner.")
    ] = False,
    json: Json = False,
) -> None:
    """The types of jobs with their fields. One that the database does not know can't be enqueued before --register."""
    registry = background_job_types()
    with database() as conn:
        if register:
            for kind in registry:
                queue.register(conn, kind)
        known = {row["job_type"]: row for row in queue.rows(conn, "known_types")}
    here = {kind.name: kind for kind in registry}
    found = [_type_line(name, here.get(name), known.get(name)) for name in sorted(here | known)]
    print_json(found) if json else print_table(
        list(found[0]), [tuple(line.values()) for line in found], fold=True
    )
    for problem in registry.problems.values():
        say(problem)
    raise typer.Exit(1 if registry.problems else 0)


def _line(row: dict[str, Any]) -> tuple[Any, ...]:
    took = (row["completed_at"] or datetime.now(UTC)) - row["started_at"] if row["started_at"] else None
    error = row["last_error"] if row["status"] in ("failed", "pending") else None
    retries = f"{row['retry_count']}/{row['max_retries']}"
    return (
        row["id"], row["job_type"], row["status"], row["progress_percentage"], error, retries, row["priority"],
        row["created_at"], duration(took),
    )  # fmt: skip


def _shown(value: Any) -> Any:
    return json_module.dumps(value, ensure_ascii=False, indent=1) if isinstance(value, dict | list) else value


def _type_line(name: str, kind: JobType | None, known: dict[str, Any] | None) -> dict[str, Any]:
    """A type as this process and the database know it; a question mark for a field that may be left out."""
    fields = fields_of(kind) if kind else known or {}
    required = set(fields["required_fields"])
    given = fields["input_fields"]
    said = [f"{f}{'' if f in required else '?'}: {t or 'any'}" for f, t in (given or {}).items()]
    outdated = (
        known and kind and any(fields[column] != known[column] for column in ("input_fields", "max_retries"))
    )
    return {
        "type": name,
        "fields": "any" if given is None else ", ".join(said),
        "retries": fields["max_retries"],
        "runs in": kind.isolation if kind else "",
        "handler": f"{kind.handler.__module__}.{kind.handler.__qualname__}" if kind else "none here",
        "database": "does not know it" if not known else "knows other fields" if outdated else "knows it",
    }
