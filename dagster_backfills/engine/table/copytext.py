"""The values of a frame's column as Postgres reads them from CSV. Not here: the COPY itself (`stage`)."""

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from dagster_backfills.engine.table.catalog import Column
from dagster_backfills.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def text_array(values: "pd.Series | pa.ChunkedArray", column: Column) -> "pa.Array | pa.ChunkedArray":
    """The values as an array that CSV has a form for. Missing values (None, NaN, NaT, NA) are null.

    Raises UserError for a NUL character, which Postgres can't hold.
    """
    import pyarrow as pa
    import pyarrow.types as types

    array = _arrow(values, column)
    if types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    kind = array.type
    if (
        types.is_nested(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_duration(kind)
    ):
        return _texts(array.to_pylist(), column)
    if types.is_null(kind):
        return array.cast(pa.string())
    if types.is_string(kind) or types.is_large_string(kind):
        _refuse_nul(array, column)
    return array


def _arrow(values: Any, column: Column) -> Any:
    import pandas as pd
    import pyarrow as pa

    if not isinstance(values, pd.Series):
        return values
    if values.dtype == object and any(not isinstance(v, str) for v in values if not _is_missing(v)):
        # Arrow would guess one type for all of them, and give each record the fields of all others.
        return _texts(values, column)
    return pa.array(values, from_pandas=True)


def _texts(values: Iterable[Any], column: Column) -> "pa.Array":
    import pyarrow as pa

    form: Callable[[Any], str] = _json if column.base_type in ("json", "jsonb") else _text
    array = pa.array([None if _is_missing(v) else form(v) for v in values], pa.string())
    _refuse_nul(array, column)
    return array


def _is_missing(value: Any) -> bool:
    import pandas as pd

    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def _json(value: Any) -> str:
    # A string is JSON already, as it would be in SQL.
    return value if isinstance(value, str) else json.dumps(_plain(value), default=str, ensure_ascii=False)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _text(value: Any) -> str:
    """One value in Postgres's own input form."""
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
    """One element of an array literal; arrays within are not quoted."""
    if _is_missing(value):
        return "NULL"
    if isinstance(value, list | tuple) or hasattr(value, "tolist"):
        return _text(value)
    text = _text(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _refuse_nul(array: Any, column: Column) -> None:
    import pyarrow.compute as pc

    has_nul = pc.fill_null(pc.match_substring(array, "\0"), False)
    if pc.any(has_nul).as_py():
        raise UserError(
            f"Column {column.name!r} has a NUL character in row {pc.index(has_nul, True).as_py()} of the frame; "
            "Postgres can't hold it.",
            hint="Remove it before the frame is returned.",
        )
