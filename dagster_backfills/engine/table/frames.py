"""Loads pandas and Arrow frames with COPY: converts their values to CSV that Postgres can read.

A separate module because it imports pandas and Arrow. Import it only where a frame is written.
"""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.types as types
from psycopg import sql

from dagster_backfills.engine.table.catalog import Column, Table
from dagster_backfills.engine.table.names import ident, type_name
from dagster_backfills.errors import UserError

_ROWS_A_WRITE = 20_000
_WITHOUT_CSV = (types.is_nested, types.is_binary, types.is_large_binary, types.is_duration)


def stage_frame(
    conn: psycopg.Connection,
    data: pd.DataFrame | pa.Table,
    table: Table,
    name: str,
    typed: Collection[str] = (),
) -> list[str]:
    """Loads a frame for `table` into the temporary table `name`, which it replaces. Returns the column names.

    The columns of the temporary table are text. An invalid value then fails in the merge, which can be bisected down to
    the row, and not in the COPY, which would fail as a whole. Only the columns `typed` (partition and unit) have their
    real types, because rows are selected by them. Raises UserError if the frame does not fit the table.
    """
    names, arrays = frame_columns(data, table)
    conn.execute(sql.SQL("drop table if exists pg_temp.{}").format(ident(name)), {})
    fields = sql.SQL(", ").join(
        sql.SQL("{} {}").format(ident(c), type_name(table.column(c).cast if c in typed else "text"))
        for c in names
    )
    conn.execute(sql.SQL("create temporary table {} ({})").format(ident(name), fields), {})
    copy_rows(conn, sql.SQL("copy pg_temp.{} from stdin (format csv)").format(ident(name)), arrays)
    conn.execute(sql.SQL("analyze pg_temp.{}").format(ident(name)), {})
    return names


def copy_rows(
    conn: psycopg.Connection, into: sql.Composed, arrays: Sequence[pa.Array | pa.ChunkedArray]
) -> int:
    """Executes a COPY of CSV with these columns and returns the number of rows."""
    rows = pa.table(list(arrays), names=[str(n) for n in range(len(arrays))])
    options = csv.WriteOptions(include_header=False)
    with conn.cursor() as cursor, cursor.copy(into, {}) as copy:
        for batch in rows.to_batches(max_chunksize=_ROWS_A_WRITE):
            sink = pa.BufferOutputStream()
            csv.write_csv(batch, sink, options)
            copy.write(memoryview(sink.getvalue()))
    return rows.num_rows


def frame_columns(data: Any, table: Table) -> tuple[list[str], list[pa.Array | pa.ChunkedArray]]:
    """Returns the names of the frame's columns, and the columns as arrays that can be written as CSV.

    Ignores a pandas index. Raises UserError if the frame does not fit the table.
    """
    if not isinstance(data, pa.Table | pd.DataFrame):
        raise UserError(
            f"An asset can't return {type(data).__name__}.",
            hint="Return a Query, a WriteSet, a pandas DataFrame, an Arrow table, or None if it wrote the rows itself.",
        )
    names = [str(name) for name in (data.column_names if isinstance(data, pa.Table) else data.columns)]
    if not names:
        raise UserError(
            "The frame has no columns.", hint="Return the table's columns, even if there are no rows."
        )
    arrays = []
    for position, name in enumerate(names):
        column = data.column(position) if isinstance(data, pa.Table) else data.iloc[:, position]
        arrays.append(text_array(column, table.column(name)))
    return names, arrays


def text_array(values: pd.Series | pa.ChunkedArray, column: Column) -> pa.Array | pa.ChunkedArray:
    """Returns the values as an array that can be written as CSV. Missing values (None, NaN, NaT, NA) become null.

    Raises UserError for a NUL character, which Postgres can't store.
    """
    array = _arrow(values, column)
    if types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    kind = array.type
    if any(is_one(kind) for is_one in _WITHOUT_CSV):
        return _texts(array.to_pylist(), column)
    if types.is_null(kind):
        return array.cast(pa.string())
    if types.is_string(kind) or types.is_large_string(kind):
        _refuse_nul(array, column)
    return array


def _arrow(values: Any, column: Column) -> Any:
    if not isinstance(values, pd.Series):
        return values
    if values.dtype == object and any(not isinstance(v, str) for v in values if not _is_missing(v)):
        # Arrow would infer one type for all values and give each record the fields of all others.
        return _texts(values, column)
    return pa.array(values, from_pandas=True)


def _texts(values: Iterable[Any], column: Column) -> pa.Array:
    form: Callable[[Any], str] = _json if column.base_type in ("json", "jsonb") else _text
    array = pa.array([None if _is_missing(v) else form(v) for v in values], pa.string())
    _refuse_nul(array, column)
    return array


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def _json(value: Any) -> str:
    # A string counts as JSON text, as it does in SQL.
    return value if isinstance(value, str) else json.dumps(_plain(value), default=str, ensure_ascii=False)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _text(value: Any) -> str:
    """One value in Postgres's input syntax."""
    value = _plain(value)
    if isinstance(value, list | tuple | set | frozenset):
        return "{" + ",".join(_element(v) for v in value) + "}"
    if isinstance(value, dict):
        return json.dumps(value, default=str, ensure_ascii=False)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"\\x{bytes(value).hex()}"
    if hasattr(value, "total_seconds"):
        return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
    return str(value)


def _element(value: Any) -> str:
    """One element of an array literal. Nested arrays are not quoted."""
    if _is_missing(value):
        return "NULL"
    if isinstance(value, list | tuple) or hasattr(value, "tolist"):
        return _text(value)
    text = _text(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _refuse_nul(array: Any, column: Column) -> None:
    has_nul = pc.fill_null(pc.match_substring(array, "\0"), False)
    if pc.any(has_nul).as_py():
        raise UserError(
            f"Column {column.name!r} has a NUL character in row {pc.index(has_nul, True).as_py()} of the frame; "
            "Postgres can't store it.",
            hint="Remove it before returning the frame.",
        )
