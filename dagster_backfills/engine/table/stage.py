"""Frames on their way in: COPY into a temporary table, from which a merge casts and writes. Not here: the merge.

The stage holds text, so that a value which its column can't take fails in the merge, where the batch can be
bisected down to its row, and not in the COPY, where all would fail. Only the columns that rows are found by
(partition and unit) have their own types, for they must compare as they will be stored.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.engine.table.copytext import text_array
from dagster_backfills.engine.table.names import columns, ident, type_name
from dagster_backfills.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_ROWS_A_WRITE = 20_000


def stage_frame(
    conn: psycopg.Connection,
    data: "pd.DataFrame | pa.Table",
    table: Table,
    name: str,
    typed: Collection[str] = (),
) -> list[str]:
    """COPY a frame that is meant for `table` into the temporary table `name`, replacing what that held.

    Returns the columns' names. Raises UserError for a frame that does not fit the table.
    """
    names, arrays = frame_columns(data, table)
    conn.execute(sql.SQL("drop table if exists pg_temp.{}").format(ident(name)), {})
    fields = [
        sql.SQL("{} {}").format(ident(c), type_name(table.column(c).cast if c in typed else "text"))
        for c in names
    ]
    conn.execute(
        sql.SQL("create temporary table {} ({})").format(ident(name), sql.SQL(", ").join(fields)), {}
    )
    copy_rows(conn, sql.SQL("copy pg_temp.{} from stdin (format csv)").format(ident(name)), arrays)
    conn.execute(sql.SQL("analyze pg_temp.{}").format(ident(name)), {})
    return names


def copy_rows(
    conn: psycopg.Connection, into: sql.Composed, arrays: "Sequence[pa.Array | pa.ChunkedArray]"
) -> int:
    """Run a COPY of CSV with these columns; returns the number of rows."""
    import pyarrow as pa
    import pyarrow.csv as csv

    rows = pa.table(list(arrays), names=[str(n) for n in range(len(arrays))])
    options = csv.WriteOptions(include_header=False)
    with conn.cursor() as cursor, cursor.copy(into, {}) as copy:
        for batch in rows.to_batches(max_chunksize=_ROWS_A_WRITE):
            sink = pa.BufferOutputStream()
            csv.write_csv(batch, sink, options)
            copy.write(memoryview(sink.getvalue()))
    return rows.num_rows


def drop_stage(conn: psycopg.Connection, name: str) -> None:
    """Give back what the stage holds; the connection lives on in its pool."""
    conn.execute(sql.SQL("drop table if exists pg_temp.{}").format(ident(name)), {})


def staged(name: str, names: Sequence[str]) -> sql.Composable:
    """A SELECT of everything that was staged, with the alias `s`."""
    return sql.SQL("select {} from pg_temp.{} as s").format(columns("s", list(names)), ident(name))


def frame_columns(data: Any, table: Table) -> "tuple[list[str], list[pa.Array | pa.ChunkedArray]]":
    """The frame's columns as arrays that CSV has a form for. A pandas index is no column."""
    import pandas as pd
    import pyarrow as pa

    if not isinstance(data, pa.Table | pd.DataFrame):
        raise UserError(
            f"An asset can't return {type(data).__name__}.",
            hint="Return a Query, a WriteSet, a pandas DataFrame, an Arrow table, or None where it wrote by itself.",
        )
    names = [str(name) for name in (data.column_names if isinstance(data, pa.Table) else data.columns)]
    if not names:
        raise UserError(
            "The frame has no columns.", hint="Return the columns of the table, with no rows if need be."
        )
    arrays = []
    for position, name in enumerate(names):
        column = data.column(position) if isinstance(data, pa.Table) else data.iloc[:, position]
        arrays.append(text_array(column, table.column(name)))
    return names, arrays
