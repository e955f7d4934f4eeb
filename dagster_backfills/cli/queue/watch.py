"""Output of `backfills queue watch`: a live table, or JSON lines in a pipe."""

import sys
from datetime import UTC, datetime
from typing import Any

import psycopg
import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from dagster_backfills.cli.output import console, fitted, json_line
from dagster_backfills.domains.queue import queue
from dagster_backfills.postgres.values import DistantTime

_REDRAW_SECONDS = 0.5
# Keys and columns of a JSON line: of one job, and of a type if many of its jobs changed at once.
_JOB = {"id": "id", "status": "status", "progress": "progress_percentage", "message": "progress_message"}
_TYPE = {name: name for name in ("job_type", "waiting", "scheduled", "processing")}


def watch_jobs(conn: psycopg.Connection, *, until_done: bool, limit: int) -> None:
    """Show active jobs until Ctrl-C, or with `until_done` until there are none. Needs an autocommit connection."""
    conn.execute("listen jobs_changed")
    if sys.stdout.isatty():
        _live(conn, until_done, limit)
    else:
        _lines(conn, until_done)


def _live(conn: psycopg.Connection, until_done: bool, limit: int) -> None:
    with Live(console=console(), auto_refresh=False) as live:
        while True:
            active = queue.rows(conn, "active_jobs", max_rows=limit)
            live.update(table(active, queue.rows(conn, "metrics"), live.console.width), refresh=True)
            if until_done and not active:
                return
            for _ in conn.notifies(timeout=_REDRAW_SECONDS):
                break


def _lines(conn: psycopg.Connection, until_done: bool) -> None:
    ended = False
    while not ended:
        # Once no job is active, one more pass prints the changes that led to it.
        ended = until_done and not queue.rows(conn, "active_jobs", max_rows=1)
        changed = queue.changed_jobs(conn, _REDRAW_SECONDS)
        jobs = queue.list_jobs(conn, len(changed), ids=list(changed - {None}))
        types = queue.rows(conn, "metrics") if None in changed else []
        for row, columns in [*((row, _JOB) for row in jobs), *((row, _TYPE) for row in types)]:
            typer.echo(json_line({name: row[column] for name, column in columns.items()}))


def table(active: list[dict[str, Any]], metrics: list[dict[str, Any]], width: int) -> Group:
    """The active jobs, and a summary of the queue below them."""
    now, rows = datetime.now(UTC), []
    for row in active:
        processing = row["status"] == "processing"
        since = row["started_at"] if processing else row["run_after"] or row["created_at"]
        elapsed = since if isinstance(since, DistantTime) else abs(now - since)
        progress = f"{row['progress_percentage']}%" if processing else None
        message = row["progress_message"] or ("scheduled" if since > now else "")
        rows.append((row["id"], row["job_type"], row["status"], progress, elapsed, message, row["priority"]))
    headers = ["job", "type", "status", "progress", "for", "message", "priority"]
    waiting, scheduled = sum(m["waiting"] for m in metrics), sum(m["scheduled"] for m in metrics)
    done, failed = sum(m["completed_last_hour"] for m in metrics), sum(m["failed_last_hour"] for m in metrics)
    summary = f"{waiting:,} waiting, {scheduled:,} scheduled; in the last hour: {done:,} completed, {failed:,} failed"
    return Group(fitted(headers, rows, "", ["job"], width)[0], Text(summary))
