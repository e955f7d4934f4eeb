"""`backfills status`: a page over all backfills, once or repeatedly, or the partitions of one. Only reads."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import psycopg
import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from dagster_backfills.cli import overview
from dagster_backfills.cli.backfills import is_elsewhere, named, the_name
from dagster_backfills.cli.database import glance, poll_database
from dagster_backfills.cli.errors import explain
from dagster_backfills.cli.instance import Tick
from dagster_backfills.cli.kintell.commands import status as show_imports
from dagster_backfills.cli.output import (
    Limit,
    Wide,
    console,
    duration,
    fitted,
    json_line,
    print_json,
    print_table,
    say,
)
from dagster_backfills.cli.queue.commands import list_ as show_queue
from dagster_backfills.cli.status_page import StatusPage, read_page
from dagster_backfills.postgres.embedded import resolve_database_url
from dagster_backfills.redact import redact


def status(
    name: Annotated[
        str,
        typer.Argument(metavar="[NAME]", help="A backfill, to show its partitions. Default: all backfills."),
    ] = "",
    text: Annotated[
        str,
        typer.Argument(metavar="[TEXT]", help="Only partitions whose key or name has it; a job type."),
    ] = "",
    needs_backfill: Annotated[
        bool, typer.Option("--needs-backfill", help="Only partitions that are missing, stale or failed.")
    ] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Only partitions with open failures.")] = False,
    limit: Limit = None,
    wide: Wide = False,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print only JSON on stdout; with --watch, one line per page."),
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between refreshes with --watch.")] = 2.0,
    ticks: Annotated[
        bool, typer.Option("--ticks/--no-ticks", help="Show schedules and sensors. Faster without.")
    ] = True,
) -> None:
    """Show what is up to date, missing, stale, failed and running, for all backfills or for each partition of one."""
    if name:
        name = the_name(name)
    elsewhere = is_elsewhere(name)
    if elsewhere and name == "kintell":
        show_imports(text, most=limit or 20, wide=wide, json=json)
    elif elsewhere:
        show_queue(status="failed" if failed else "", job_type=text, limit=limit, wide=wide, json=json)
    elif name:
        overview.show_partitions(named(name, "status"), text, needs_backfill, failed, limit, wide, json)
    elif watch:
        _watch(json, interval, ticks)
    else:
        with glance() as conn:
            page = read_page(conn, resolve_database_url(), ticks=ticks)
        print_json(asdict(page)) if json else _print(page, wide)


@dataclass(frozen=True)
class Section:
    """A table of the page and its title."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]
    ids: Sequence[str] = ()


def sections(page: StatusPage) -> Iterator[Section]:
    """The tables of the page. Empty ones are left out, except the backfills."""
    yield Section("backfills", *overview.rows(page.backfills), ids=["backfill"])
    busy = [each for each in page.queue if any(value for name, value in each.items() if name != "job_type")]
    chain = {name.rpartition("/")[2].replace("_", " "): name for name in page.chain[0]} if page.chain else {}
    others = [
        _section("running", page.running, _RUNNING),
        _section("held back", page.held, {"what": "name", "how": "held", "since": "since"}),
        _section("imports", page.imports, _IMPORTS),
        _section("queue of background jobs", busy, _QUEUE),
        _section("scoring chain", page.chain, chain),
        _section("open failures", page.failures, _FAILURES),
        Section(
            "schedules and sensors", ["name", "kind", "next tick", "last tick", "result", "message"],
            [
                (
                    tick.name, tick.kind, _next(tick, page.at), _when(tick.last, page.at),
                    tick.result, tick.message,
                )
                for tick in page.dagster.ticks
            ],
        ),
    ]  # fmt: skip
    yield from (section for section in others if section.rows)


# For each table, by header: a column of the page's rows, or a pair shown as "done of total".
_Columns = Mapping[str, str | tuple[str, str]]
_RUNNING: _Columns = {
    "run": "run_id", "assets": "assets", "units": ("units_done", "units_total"), "failed": "failures",
    "time left": "time_left", "partitions": ("partitions_done", "partitions_total"), "units/s": "units_per_second",
    "last batch": "silent_for",
}  # fmt: skip
_IMPORTS: _Columns = {
    "job": "job", "file": "file_name", "status": "status", "rows": ("processed_rows", "total_rows"),
    "rejected": "failed_rows", "rows/s": "rows_per_second", "time left": "time_left", "heartbeat": "silent_for",
}  # fmt: skip
_QUEUE: _Columns = {
    "type": "job_type", "waiting": "waiting", "processing": "processing", "failed last hour": "failed_last_hour",
    "oldest waiting": "oldest_waiting", "scheduled": "scheduled", "done last hour": "completed_last_hour",
}  # fmt: skip
_FAILURES: _Columns = {"asset": "asset", "units": "failures", "message": "last_message", "last": "last_seen"}


def _section(title: str, rows: Sequence[Mapping[str, Any]], columns: _Columns) -> Section:
    shown = [[_shown(row, column) for column in columns.values()] for row in rows]
    return Section(title, list(columns), shown, ids=["run", "job"])


def _shown(row: Mapping[str, Any], column: str | tuple[str, str]) -> Any:
    if isinstance(column, tuple):
        done, total = (row[name] for name in column)
        return f"{done or 0:,}" if total is None else f"{done or 0:,} of {total:,}"
    value = row[column]
    if column == "silent_for" and value is not None:
        return f"{duration(value)} ago"
    if column == "last_message":
        return redact(value)
    return f"{value:,.0f}" if column.endswith("per_second") and value is not None else value


def remarks(page: StatusPage) -> list[str]:
    """Remarks below the tables."""
    lines = overview.remarks(page.backfills)
    if page.dagster.problem:
        lines.append(f"The state of Dagster is unknown: {page.dagster.problem}")
    elif not page.dagster.daemon_works:
        seconds = page.dagster.daemon_seconds
        state = "has never run" if seconds is None else f"sent its last heartbeat {duration(seconds)} ago"
        lines.append(f"The daemon {state}: nothing ticks, no queued run starts. Start it: backfills up")
    if page.dagster.runs_queued or page.dagster.runs_started:
        lines.append(f"Runs: {page.dagster.runs_started:,} in progress, {page.dagster.runs_queued:,} queued.")
    if page.failures:
        lines.append("Show failures: backfills failures · retry them: backfills run NAME --which failed")
    return lines


def _print(page: StatusPage, wide: bool = False) -> None:
    say(page.server)
    for section in sections(page):
        if not sys.stdout.isatty():
            typer.echo(f"# {section.title}")
        print_table(section.headers, section.rows, section.title, ids=section.ids, wide=wide)
    say(*remarks(page))


def _watch(json: bool, interval: float, ticks: bool) -> None:
    """Refresh the page until Ctrl-C. Keeps trying while the database is unavailable."""
    pages = _pages(interval, ticks)
    if json or not sys.stdout.isatty():
        for page in pages:
            if isinstance(page, str):
                say(page)
            elif json:
                typer.echo(json_line(asdict(page)))
            else:
                typer.echo(f"# {page.at:%Y-%m-%d %H:%M:%S} UTC")
                _print(page)
            sys.stdout.flush()
        return
    with Live(console=console(), auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        for page in pages:
            live.update(_screen(page), refresh=True)


def _screen(page: StatusPage | str) -> Any:
    if isinstance(page, str):
        return Text(page)
    head = Text(f"{page.server} · {page.at:%Y-%m-%d %H:%M:%S} UTC · Ctrl-C to quit")
    width = console().width
    tables = [fitted(each.headers, each.rows, each.title, each.ids, width)[0] for each in sections(page)]
    return Group(head, Text("\n".join(remarks(page))), *tables)


def _pages(interval: float, ticks: bool) -> Iterator[StatusPage | str]:
    """Yield a page every `interval` seconds, or the error message. The first page must succeed."""
    with glance():
        url = resolve_database_url()
        for page in poll_database(url, lambda conn: read_page(conn, url, ticks=ticks)):
            if isinstance(page, psycopg.OperationalError):
                yield f"{datetime.now(UTC):%H:%M:%S} UTC: {redact(explain(page)[1])} Retrying."
            else:
                yield page
            time.sleep(interval)


def _next(tick: Tick, now: datetime) -> str | None:
    """An overdue tick is due now. Reading the page takes some seconds on a busy server."""
    return _when(tick.next and max(tick.next, now), now) if tick.on else "off"


def _when(value: datetime | None, now: datetime) -> str | None:
    """Relative to now within an hour, otherwise absolute."""
    if value is None:
        return None
    distance = value - now
    if abs(distance) >= timedelta(hours=1):
        return f"{value:%Y-%m-%d %H:%M} UTC"
    if abs(distance) < timedelta(seconds=1):
        return "now"
    return f"in {duration(distance)}" if distance > timedelta() else f"{duration(-distance)} ago"
