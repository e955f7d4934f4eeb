"""Columns of a frame as rows of Postgres's binary COPY: nothing is printed here and nothing parsed there.

A field is four bytes of length, -1 for null, and its value; numbers are big-endian. Not here: which columns.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import pyarrow as pa

    Field: TypeAlias = np.ndarray | pa.Array

SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"
PIECE = 1 << 20
EPOCH = 946_684_800_000_000  # microseconds from 1970 to 2000, where Postgres counts from


def copy_frame(conn: psycopg.Connection, into: str, frame: "pl.DataFrame") -> int:
    """COPY a frame by the statement `into`, which names its columns in their order; returns the rows."""
    return copy_fields(conn, into, list(fields_of(frame).values()))


def fields_of(frame: "pl.DataFrame") -> "dict[str, Field]":
    """The columns in the form that `copy_fields` takes, for those that go into more than one table.

    Binary columns are UUIDs of 16 bytes, times are `timestamptz`, integers have their own widths.
    """
    return {column.name: _field(column) for column in frame.iter_columns()}


def copy_fields(conn: psycopg.Connection, into: str, fields: "Sequence[Field]") -> int:
    """COPY columns by the statement `into`; returns the rows."""
    rows = memoryview(encode(fields))
    cursor = conn.cursor()
    with cursor.copy(into) as copy:
        copy.write(SIGNATURE)
        for at in range(0, len(rows), PIECE):
            copy.write(rows[at : at + PIECE])
        copy.write(END)
    return cursor.rowcount


def _field(column: "pl.Series") -> "Field":
    """A column of one width without nulls as an array of bytes by row; any other as an Arrow array."""
    import numpy as np
    import polars as pl
    import pyarrow as pa

    if column.dtype == pl.String:
        return column.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_binary())
    if column.dtype == pl.Binary:
        bytes_of = column.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.binary(16)).buffers()[1]
        values = np.frombuffer(bytes_of, np.uint8).reshape(-1, 16)
    elif isinstance(column.dtype, pl.Datetime):
        values = _big_endian(column.dt.epoch("us").fill_null(0).to_numpy() - EPOCH)
    else:
        values = _big_endian(column.fill_null(0).to_numpy())
    return _in_arrow(values, column.is_not_null().to_numpy()) if column.null_count() else values


def _big_endian(values: "np.ndarray") -> "np.ndarray":
    import numpy as np

    swapped = np.ascontiguousarray(values.astype(values.dtype.newbyteorder(">")))
    return swapped.view(np.uint8).reshape(len(values), values.dtype.itemsize)


def encode(fields: "Sequence[Field]") -> Any:
    """The rows of these fields, one behind the other, as a buffer."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    n = len(fields[0])
    if n == 0:
        return b""
    fixed = [np.broadcast_to(_big_endian(np.array([len(fields)], np.int16)), (n, 2))]
    pieces: list[Any] = []
    for field in fields:
        if isinstance(field, np.ndarray):
            length = _big_endian(np.array([field.shape[1]], np.int32))
            fixed += [np.broadcast_to(length, (n, 4)), field]
            continue
        lengths = pc.fill_null(pc.binary_length(field), -1).to_numpy(zero_copy_only=False)
        fixed.append(_big_endian(lengths.astype(np.int32)))
        pieces += [_in_arrow(np.concatenate(fixed, axis=1)), field]
        fixed = []
    if fixed:
        pieces.append(_in_arrow(np.concatenate(fixed, axis=1)))
    nothing = pa.scalar(b"", pa.large_binary())
    rows = pc.binary_join_element_wise(*pieces, nothing, null_handling="replace", null_replacement=b"")
    return rows.buffers()[2]


def _in_arrow(values: "np.ndarray", valid: "np.ndarray | None" = None) -> "pa.Array":
    import numpy as np
    import pyarrow as pa

    n, width = values.shape
    offsets = np.arange(0, (n + 1) * width, width, dtype=np.int64)
    known = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.large_binary(), n, [known, pa.py_buffer(offsets), data])
