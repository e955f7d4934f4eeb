"""How things look on the terminal and in a pipe: data, tables, questions. Not here: what they say."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from math import isfinite
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dagster_backfills.cli.errors import INTERRUPTED
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.values import LongInterval, plain


def console(stderr: bool = False) -> Console:
    """A Rich console: colours and boxes on a terminal, plain lines that are never folded in a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, soft_wrap=not stream.isatty())


def say(*lines: str) -> None:
    """Plain lines for a person, on stderr: stdout is for data."""
    for line in lines:
        typer.echo(line, err=True)


def print_json(data: Any) -> None:
    """`data` as JSON and nothing else on stdout. Times are ISO 8601, durations are seconds.

    What JSON has no number for (NaN, an endless time or interval) is a text, as Postgres writes it.
    """
    typer.echo(json.dumps(plain(data), ensure_ascii=False, indent=2))


def json_line(data: Any) -> str:
    """The same in one line, for a stream of them."""
    return json.dumps(plain(data), ensure_ascii=False)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
    """A table on a terminal; in a pipe one line a row, values separated by tabs, headers first."""
    if sys.stdout.isatty():
        console().print(table_of(headers, rows, title))
        return
    for row in [headers, *([_cell(value) for value in row] for row in rows)]:
        typer.echo("\t".join(" ".join(cell.split()) for cell in row))


def table_of(headers: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> Table:
    """A table for a terminal."""
    cells = [[_cell(value) for value in row] for row in rows]
    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    numeric = [all(_is_number(cell) for cell in column) for column in zip(*cells, strict=True)]
    for index, header in enumerate(headers):
        table.add_column(header, justify="right" if numeric[index : index + 1] == [True] else "left")
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def confirm(question: str, yes: bool) -> None:
    """Return if `--yes` was given or the person agrees; otherwise nothing is done and the command ends."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{question} There is no one to ask.", "Add --yes.")
    if not typer.confirm(question, err=True):
        say("Nothing was done.")
        raise typer.Exit(INTERRUPTED)


def duration(value: timedelta | float | None) -> str:
    """`1 h 02 min`, `3 min 20 s`, `12 s`; a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, LongInterval) or (isinstance(value, float) and not isfinite(value)):
        return str(value)
    seconds = round(value.total_seconds() if isinstance(value, timedelta) else value)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if sys.stdout.isatty() else str(value)
    if isinstance(value, timedelta):
        return duration(value)
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return str(value)


def _is_number(cell: str) -> bool:
    return cell == "–" or cell.replace(",", "").replace(".", "").replace("%", "").lstrip("-").isdigit()
