"""Printing for terminals and pipes: tables, fields, JSON, questions. Not here: the texts themselves."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Annotated, Any

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dagster_backfills.cli.errors import INTERRUPTED
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.values import DistantTime, LongInterval, plain

_GAP = 2  # between two columns
_LEAST = 15  # minimum width of a truncated text
_MESSAGE = 40  # the width that a message gets before the columns to its right get any
_MESSAGES = ("message", "last error", "fields")
_LONGEST_ID = 48
_ENDLESS = 1_000_000
_TIME = re.compile(r"–|\d{4}-\d\d-\d\d( \d\d:\d\d)?")


def console(stderr: bool = False) -> Console:
    """A Rich console: colors and boxes on a terminal, plain unwrapped lines in a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, soft_wrap=not stream.isatty())


def say(*lines: str) -> None:
    """Print lines for a person on stderr. Stdout is for data."""
    for line in lines:
        typer.echo(line, err=True)


def print_json(data: Any) -> None:
    """Print `data` as JSON on stdout. Times are ISO 8601, durations are seconds.

    Values that JSON has no number for (NaN, infinite times and intervals) become strings, as Postgres writes them.
    """
    typer.echo(json.dumps(plain(data), ensure_ascii=False, indent=2))


def json_line(data: Any) -> str:
    """`data` as JSON on one line, for JSON Lines output."""
    return json.dumps(plain(data), ensure_ascii=False)


Json = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")]
Wide = Annotated[bool, typer.Option("--wide", help="Show all columns in full, however long the lines.")]
Limit = Annotated[
    int | None,
    typer.Option("--limit", "-n", min=1, help="Maximum number of rows. Default on a terminal: one screen."),
]


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[Any]],
    title: str = "",
    *,
    limit: int | None = _ENDLESS,
    ids: Sequence[str] = (),
    wide: bool = False,
    fold: bool = False,
) -> None:
    """Print a table on a terminal, or tab-separated lines with a header in a pipe.

    On a terminal each row is one line. If the table is too wide, texts are truncated, and columns that do not fit even
    so are hidden: put those first that matter most. A message is truncated only after the columns to its right are
    hidden. Numbers, times and the columns in `ids` (unless very long) are never truncated. `wide` shows everything.
    `fold` wraps texts instead of truncating them. `limit`: maximum number of rows; None: one screen on a terminal.
    """
    rows = list(rows)
    shown = rows[: limit or max(10, console().height - 6)] if limit or sys.stdout.isatty() else rows
    if not sys.stdout.isatty():
        for row in [headers, *([_cell(value) for value in row] for row in shown)]:
            typer.echo("\t".join(" ".join(cell.split()) for cell in row))
        return
    width = _ENDLESS if wide else console().width
    table, hidden = fitted(headers, shown, title, ids, width, fold=fold)
    if title:
        typer.echo()
    Console(width=_ENDLESS, highlight=False, soft_wrap=True).print(table)
    if limit is None and len(shown) < len(rows):
        say(f"Showing {len(shown):,} of {len(rows):,}. Show all: --limit {len(rows)}")
    if hidden:
        say(f"Hidden: {', '.join(hidden)}. Use --wide to show all.")


def fitted(
    headers: Sequence[str],
    rows: Iterable[Sequence[Any]],
    title: str,
    ids: Sequence[str],
    width: int,
    *,
    fold: bool = False,
) -> tuple[Table, list[str]]:
    """A table of at most `width` columns of text, and the headers of the columns that had to be hidden."""
    values = [list(row) for row in rows]
    cells = [[" ".join(_cell(value).split()) for value in row] for row in values]
    titles = [
        f"{header}, UTC" if any(_in_utc(row[index]) for row in values) else header
        for index, header in enumerate(headers)
    ]
    columns = list(zip(titles, *cells, strict=True))
    numeric = [bool(cells) and all(_is_number(cell) for cell in column[1:]) for column in columns]
    is_id = [column[0] in ids and max(map(cell_len, column)) <= _LONGEST_ID for column in columns]
    fixed = [
        number or id or all(map(_TIME.fullmatch, column[1:]))
        for number, id, column in zip(numeric, is_id, columns, strict=True)
    ]
    messages = [header in _MESSAGES for header in headers]
    widths = _widths([max(map(cell_len, column)) for column in columns], fixed, is_id, messages, width)
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.pad_edge, table.padding = False, (0, 1, 0, 0)
    visible = [index for index, column_width in enumerate(widths) if column_width]
    for index in visible:
        table.add_column(
            titles[index],
            justify="right" if numeric[index] else "left",
            width=widths[index],
            no_wrap=not fold,
            overflow="fold" if fold else "ellipsis",
        )
    for row in cells:
        table.add_row(*(Text(row[index]) for index in visible))
    return table, [headers[index] for index, column_width in enumerate(widths) if not column_width]


def _widths(
    natural: Sequence[int], fixed: Sequence[bool], ids: Sequence[bool], messages: Sequence[bool], width: int
) -> list[int]:
    """The width of each column so that all fit into `width`; 0 for a hidden column. The first columns go first."""
    widths = [each if is_id else 0 for each, is_id in zip(natural, ids, strict=True)]
    room = width - sum(widths) - _GAP * (sum(ids) - 1)
    for index, each in enumerate(natural):
        least = each if fixed[index] else min(each, _LEAST)
        if not ids[index] and least + _GAP <= room:
            wanted = min(each, _MESSAGE) if messages[index] else least
            widths[index] = min(wanted, room - _GAP)
            room -= widths[index] + _GAP
    while room > 0 and (cut := [i for i, each in enumerate(widths) if 0 < each < natural[i]]):
        widths[min(cut, key=widths.__getitem__)] += 1
        room -= 1
    return widths


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Print one object, one field per line, without truncation. Fields that are None are left out."""
    known = [(name, value) for name, value in fields if value is not None]
    if not sys.stdout.isatty():
        print_table(["field", "value"], known)
        return
    table = Table.grid(padding=(0, 2))
    for name, value in known:
        text = f"{_cell(value)} UTC" if _in_utc(value) else _cell(value)
        table.add_row(name, Text(text, overflow="fold"))
    console().print(table)


def confirm(question: str, yes: bool) -> None:
    """Return if `--yes` was given or the user agrees; otherwise end the command."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{question} Input is not a terminal, so you can't be asked.", "Add --yes.")
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
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, indent=1)
    if isinstance(value, datetime):
        known = value.astimezone(UTC) if value.tzinfo else value
        if not sys.stdout.isatty() or isinstance(value, DistantTime):
            return known.isoformat(sep=" ", timespec="seconds")
        return f"{known:%Y-%m-%d %H:%M}"
    return str(value)


def _in_utc(value: Any) -> bool:
    """Whether it is shown in UTC: a time with a zone. One without a zone is shown as it is stored."""
    return isinstance(value, datetime) and value.tzinfo is not None


def _is_number(cell: str) -> bool:
    return cell == "–" or cell.replace(",", "").replace(".", "").replace("%", "").lstrip("-").isdigit()
