"""`backfills failures`: what could not be written, of one backfill or of all."""

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
# Of what is in no ledger: rejected rows of imports, and jobs.
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
_MENDED_BY = {"kintell": "backfills kintell replay JOB", "queue": "backfills queue retry ID"}


def failures(
    name: Annotated[
        str,
        typer.Argument(metavar="[NAME]", help="The backfill, as `backfills list` has it; without it, all."),
    ] = "",
    resolved: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    limit: Limit = None,
    wide: Wide = False,
    json: Json = False,
) -> None:
    """What could not be written, with the database's own message, the newest first; and how to try it again."""
    found = the_name(name) if name else ""
    elsewhere = found if is_elsewhere(found) else ""
    ours = named(found, "failures") if found and not elsewhere else None
    connection: AbstractContextManager[psycopg.Connection[Any]] = ours.connect() if ours else glance()
    binds = {"all": resolved, "assets": ours.assets if ours else None}
    with connection as conn:
        entries = (
            conn.cursor(row_factory=dict_row).execute(_ELSEWHERE.get(elsewhere, _LEDGER), binds).fetchall()
        )
    if json:
        print_json(entries[:limit])
        return
    if not entries:
        say(f"Nothing of {found} has failed." if found else "Nothing has failed.")
        return
    columns = [each for each in entries[0] if each not in _HIDDEN and (resolved or each != "resolved_at")]
    told = [each | {"message": each["message"] and redact(each["message"])} for each in entries]
    rows = [[each[column] for column in columns] for each in told]
    headers = [column.replace("_", " ") for column in columns]
    print_table(headers, rows, limit=limit, ids=["job", "partition", "unit"], wide=wide)
    if not resolved:
        again = _MENDED_BY.get(elsewhere) or f"backfills run {found or 'NAME'} --which failed"
        say(f"To try again, once the cause is mended: {again}")
