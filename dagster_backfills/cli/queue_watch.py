"""What `backfills jobs watch` shows. Not here: the other commands."""

import json
import sys
from datetime import UTC, datetime
from typing import Any

import psycopg
import typer
from rich import box
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dagster_backfills.cli.output import console, duration
from dagster_backfills.domains.queue import queue

_REDRAW_SECONDS = 0.5


def watch_jobs(conn: psycopg.Connection, *, until_done: bool, limit: int) -> None:
    """Show the active jobs until Ctrl-C, or until there are none. The connection must be in autocommit."""
    conn.execute("listen jobs_changed")
    if sys.stdout.isatty():
        _live(conn, until_done, limit)
    else:
        _lines(conn, until_done)


def _live(conn: psycopg.Connection, until_done: bool, limit: int) -> None:
    with Live(console=console(), auto_refresh=False) as live:
        while True:
            active = queue.rows(conn, "active_jobs", max_rows=limit)
            live.update(table(active, queue.rows(conn, "metrics")), refresh=True)
            if until_done and not active:
                return
            for _ in conn.notifies(timeout=_REDRAW_SECONDS):
                break


def _lines(conn: psycopg.Connection, until_done: bool) -> None:
    ended = False
    while not ended:
        # Once no job is active, one more look brings the changes that led to it.
        ended = until_done and not queue.rows(conn, "active_jobs", max_rows=1)
        for notice in list(conn.notifies(timeout=_REDRAW_SECONDS)):
            change = json.loads(notice.payload)
            if "progress" in change:
                # The channel is everybody's, the row is not.
                found = queue.rows(conn, "one_job", job_id=change["id"])
                change["message"] = found[0]["progress_message"] if found else None
            typer.echo(json.dumps(change, ensure_ascii=False))


def table(active: list[dict[str, Any]], metrics: list[dict[str, Any]]) -> Any:
    """The active jobs, and below them how the queue stands."""
    found = Table(box=box.SIMPLE_HEAD)
    for header in ("job", "type", "status", "priority", "progress", "", "for"):
        found.add_column(header, no_wrap=header != "")
    now = datetime.now(UTC)
    for row in active:
        since = row["started_at"] if row["status"] == "processing" else row["run_after"] or row["created_at"]
        bar = ProgressBar(total=100, completed=row["progress_percentage"], width=20)
        said = row["progress_message"] or ("later" if since > now else "")
        found.add_row(
            str(row["id"]), row["job_type"], row["status"], str(row["priority"]),
            bar if row["status"] == "processing" else "", Text(said), duration(abs(now - since)),
        )  # fmt: skip
    waiting, scheduled = sum(m["waiting"] for m in metrics), sum(m["scheduled"] for m in metrics)
    done, failed = sum(m["completed_last_hour"] for m in metrics), sum(m["failed_last_hour"] for m in metrics)
    summary = (
        f"{waiting:,} wait, {scheduled:,} for later; in the last hour {done:,} completed, {failed:,} failed"
    )
    return Group(found, Text(summary))
