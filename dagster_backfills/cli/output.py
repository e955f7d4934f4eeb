"""How things look on the terminal and in a pipe: data, tables, questions. Not here: what they say."""

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
_LEAST = 16  # of a text that is cut off
_LONGEST_ID = 48
_ENDLESS = 1_000_000
_TIME = re.compile(r"–|\d{4}-\d\d-\d\d( \d\d:\d\d)?")


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


Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Wide = Annotated[bool, typer.Option("--wide", help="Every column whole, however long the lines.")]
Limit = Annotated[
    int | None,
    typer.Option("--limit", "-n", min=1, help="At most so many; on a terminal a screen without it."),
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
    """A table on a terminal; in a pipe one line a row, values separated by tabs, headers first.

    On a terminal a row is one line. Columns of `ids` (but for very long ones), of numbers and times are never cut off:
    texts give way, then the last columns do. `wide` shows all of it. `fold`: texts are the point, and take as many
    lines as they need.
    `limit`: at most so many rows; with None a screen of them on a terminal.
    """
    found = list(rows)
    shown = found[: limit or max(10, console().height - 6)] if limit or sys.stdout.isatty() else found
    if not sys.stdout.isatty():
        for row in [headers, *([_cell(value) for value in row] for row in shown)]:
            typer.echo("\t".join(" ".join(cell.split()) for cell in row))
        return
    width = _ENDLESS if wide else console().width
    table, absent = fitted(headers, shown, title, ids, width, fold=fold)
    if title:
        typer.echo()
    Console(width=_ENDLESS, highlight=False, soft_wrap=True).print(table)
    if limit is None and len(shown) < len(found):
        say(f"{len(shown):,} of {len(found):,} are shown. All: --limit {len(found)}")
    if absent:
        say(f"No room for {', '.join(absent)}: --wide")


def fitted(
    headers: Sequence[str],
    rows: Iterable[Sequence[Any]],
    title: str,
    ids: Sequence[str],
    width: int,
    *,
    fold: bool = False,
) -> tuple[Table, list[str]]:
    """A table that is so wide at most, and the headers of the columns for which there is no room."""
    cells = [[" ".join(_cell(value).split()) for value in row] for row in rows]
    columns = list(zip(headers, *cells, strict=True))
    numeric = [bool(cells) and all(_is_number(cell) for cell in column[1:]) for column in columns]
    ided = [column[0] in ids and max(map(cell_len, column)) <= _LONGEST_ID for column in columns]
    firm = [
        number or one or all(map(_TIME.fullmatch, column[1:]))
        for number, one, column in zip(numeric, ided, columns, strict=True)
    ]
    widths = _widths([max(map(cell_len, column)) for column in columns], firm, ided, width)
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.pad_edge, table.padding = False, (0, 1, 0, 0)
    there = [index for index, wide in enumerate(widths) if wide]
    for index in there:
        table.add_column(
            headers[index],
            justify="right" if numeric[index] else "left",
            width=widths[index],
            no_wrap=not fold,
            overflow="fold" if fold else "ellipsis",
        )
    for row in cells:
        table.add_row(*(Text(row[index]) for index in there))
    return table, [headers[index] for index, wide in enumerate(widths) if not wide]


def _widths(wanted: list[int], firm: list[bool], ids: list[bool], width: int) -> list[int]:
    """How wide each column may be, 0 for one that has no room."""
    widths = [min(each, width) if not ids[index] else each for index, each in enumerate(wanted)]
    while sum(widths) + _GAP * (sum(map(bool, widths)) - 1) > width:
        soft = [index for index, each in enumerate(widths) if not firm[index] and each > _LEAST]
        others = [index for index, each in enumerate(widths) if each and not ids[index]]
        if soft:
            widths[max(soft, key=lambda index: widths[index])] -= 1
        elif others:
            widths[others[-1]] = 0
            widths = [min(wanted[index], width) if each else 0 for index, each in enumerate(widths)]
        else:
            break
    return widths


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """What is known of one thing, a field a line and none cut off; what is not known is left out."""
    known = [(name, _cell(value)) for name, value in fields if value is not None]
    if not sys.stdout.isatty():
        print_table(["field", "value"], known)
        return
    table = Table.grid(padding=(0, 2))
    for name, text in known:
        table.add_row(name, Text(text, overflow="fold"))
    console().print(table)


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
        if not sys.stdout.isatty() or isinstance(value, DistantTime):
            known = value.astimezone(UTC) if value.tzinfo else value
            return known.isoformat(sep=" ", timespec="seconds")
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
    return str(value)


def _is_number(cell: str) -> bool:
    return cell == "–" or cell.replace(",", "").replace(".", "").replace("%", "").lstrip("-").isdigit()
