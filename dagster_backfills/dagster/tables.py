"""Rows as a table in an event's metadata: Dagster's own, or one in Markdown, in whose cells more may stand."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg


def table(rows: Iterable[Mapping[str, Any]]) -> dg.MetadataValue:
    """At least one row. What a row lacks is null in it; what Dagster has no type for stands as text."""
    given = list(rows)
    columns = dict.fromkeys(name for row in given for name in row)
    return dg.MetadataValue.table(
        [dg.TableRecord({name: _plain(row.get(name)) for name in columns}) for row in given]
    )


def markdown(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Whole numbers have their thousands apart; what stands in a cell can't end it."""
    cells = [headers, ["---"] * len(headers), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _plain(value: Any) -> str | int | float | bool | None:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _cell(value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) else f"{value}"
    return " ".join(text.split()).replace("|", "&#124;")
