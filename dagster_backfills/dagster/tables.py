"""Tables in event metadata: Dagster's own table type, or Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg


def table(rows: Iterable[Mapping[str, Any]]) -> dg.MetadataValue:
    """A Dagster table of at least one row. Missing values are null; values of other types are converted to text."""
    records = list(rows)
    columns = dict.fromkeys(name for row in records for name in row)
    return dg.MetadataValue.table(
        [dg.TableRecord({name: _plain(row.get(name)) for name in columns}) for row in records]
    )


def markdown(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table. Integers get thousands separators, and characters that would end a cell are escaped."""
    cells = [headers, ["---"] * len(headers), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _plain(value: Any) -> str | int | float | bool | None:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _cell(value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) else f"{value}"
    return " ".join(text.split()).replace("|", "&#124;")
