"""`backfills failures`: what could not be written, for one backfill or for all."""

from contextlib import AbstractContextManager
from typing import Annotated, Any

import psycopg
import typer
from psycopg.rows import dict_row

from dagster_backfills.cli.backfills import is_elsewhere, named, the_name
from dagster_backfills.cli.database import glance
from dagster_backfills.cli.output import Json, Limit, Wide, print_json, print_table, say
from dagster_backfills.redact import redact

_LEDGER = """
select
    partition, unit, message, attempts, last_seen, asset, resolved_at, first_seen, error_class, sqlstate, run_id
from backfill.failures
where (%(all)s or resolved_at is null) and (%(assets)s::text[] is null or asset = any(%(assets)s))
order by resolved_at is not null, last_seen desc, id
"""
# Failures that are not in backfill.failures: rejected rows of imports, and failed background jobs.
_ELSEWHERE = {
    "kintell": """
        select job_id as job, row_number as row, error_message as message, created_at as last_seen, resolved_at
        from kintell.backfill_row_errors
        where %(all)s or resolved_at is null
        order by resolved_at is not null, created_at desc, job_id, row_number
    """,
    "queue": """
        select id as job, job_type as type, error_data -> -1 ->> 'message' as message, completed_at as last_seen
        from jobs.background_jobs
        where status = 'failed'
        order by completed_at desc, id
    """,
}
_HIDDEN = ("first_seen", "error_class", "sqlstate", "run_id")
_RETRY_WITH = {"kintell": "backfills kintell replay JOB", "queue": "backfills queue retry ID"}


def failures(
    name: Annotated[
        str,
        typer.Argument(metavar="[NAME]", help="The backfill's name, as in `backfills list`. Default: all."),
    ] = "",
    resolved: Annotated[bool, typer.Option("--all", help="Include resolved failures.")] = False,
    limit: Limit = None,
    wide: Wide = False,
    json: Json = False,
) -> None:
    """List what could not be written, newest first, with the database's message and how to retry."""
    name = the_name(name) if name else ""
    elsewhere = name if is_elsewhere(name) else ""
    backfill = named(name, "failures") if name and not elsewhere else None
    connection: AbstractContextManager[psycopg.Connection[Any]] = backfill.connect() if backfill else glance()
    binds = {"all": resolved, "assets": backfill.assets if backfill else None}
    with connection as conn:
        entries = (
            conn.cursor(row_factory=dict_row).execute(_ELSEWHERE.get(elsewhere, _LEDGER), binds).fetchall()
        )
    if json:
        print_json(entries[:limit])
        return
    if not entries:
        say(f"{name} has no failures." if name else "There are no failures.")
        return
    columns = [each for each in entries[0] if each not in _HIDDEN and (resolved or each != "resolved_at")]
    redacted = [each | {"message": each["message"] and redact(each["message"])} for each in entries]
    rows = [[each[column] for column in columns] for each in redacted]
    headers = [column.replace("_", " ") for column in columns]
    print_table(headers, rows, limit=limit, ids=["job", "partition", "unit"], wide=wide)
    if not resolved:
        retry = _RETRY_WITH.get(elsewhere) or f"backfills run {name or 'NAME'} --which failed"
        say(f"To retry once the cause is fixed: {retry}")
