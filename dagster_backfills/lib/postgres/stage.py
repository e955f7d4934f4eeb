"""Frames on their way in: COPY into a temporary table of text, from which a merge casts and writes.

The stage holds text, so that a value which its column can't take fails in the merge, where the batch can be
bisected down to its row, and not in the COPY, where all would fail.
"""

import json
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from dagster_backfills.lib.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

STAGE = "backfill_stage"


def to_arrow(data: Any) -> "pa.Table":
    """A pandas DataFrame or an Arrow table, as an Arrow table without the frame's index."""
    import pandas as pd
    import pyarrow as pa

    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pd.DataFrame):
        names = [str(name) for name in data.columns]
        if len(set(names)) != len(names):
            raise UserError(
                f"The frame has two columns of one name: {', '.join(names)}.", hint="Rename one of them."
            )
        return pa.Table.from_pandas(data.set_axis(names, axis="columns"), preserve_index=False)
    raise UserError(
        f"An asset can't return {type(data).__name__}.",
        hint="Return a Query, a WriteSet, a pandas DataFrame, an Arrow table, or None where it wrote by itself.",
    )


def stage_frame(conn: psycopg.Connection, data: "pd.DataFrame | pa.Table", name: str = STAGE) -> list[str]:
    """COPY the frame into the temporary table `name`, replacing what it held. Returns the columns' names."""
    import io

    import pyarrow.csv as csv

    table = _as_text_safe(to_arrow(data))
    columns = table.column_names
    if not columns:
        raise UserError(
            "The frame has no columns.", hint="Return the columns of the table, with no rows if need be."
        )
    conn.execute(sql.SQL("drop table if exists pg_temp.{}").format(sql.Identifier(name)))
    fields = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(c)) for c in columns)
    conn.execute(sql.SQL("create temporary table {} ({})").format(sql.Identifier(name), fields))
    into = sql.SQL("copy pg_temp.{} from stdin (format csv)").format(sql.Identifier(name))
    options = csv.WriteOptions(include_header=False)
    with conn.cursor() as cursor, cursor.copy(into) as copy:
        for batch in table.to_batches(max_chunksize=20_000):
            buffer = io.BytesIO()
            csv.write_csv(batch, buffer, options)
            copy.write(buffer.getbuffer())
    conn.execute(sql.SQL("analyze pg_temp.{}").format(sql.Identifier(name)))
    return columns


def staged(name: str = STAGE) -> sql.Composable:
    """A SELECT of everything that was staged."""
    return sql.SQL("select * from pg_temp.{}").format(sql.Identifier(name))


def _as_text_safe(table: "pa.Table") -> "pa.Table":
    """Columns that CSV has no form for, in Postgres's own: arrays and records; and no NUL, which text can't hold."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    for position, field in enumerate(table.schema):
        column, kind = table.column(position), field.type
        if types.is_dictionary(kind):
            column = column.cast(kind.value_type)
            kind = kind.value_type
        if types.is_string(kind) or types.is_large_string(kind):
            if pc.any(pc.match_substring(column, "\0")).as_py():
                row = pc.index(pc.fill_null(pc.match_substring(column, "\0"), False), True).as_py()
                raise UserError(
                    f"Column {field.name!r} has a NUL character in row {row} of the frame; Postgres can't hold it.",
                    hint="Remove it before the frame is returned.",
                )
        elif types.is_list(kind) or types.is_large_list(kind):
            column = pa.array([_array(v) for v in column.to_pylist()], pa.string())
        elif types.is_struct(kind) or types.is_map(kind):
            column = pa.array(
                [None if v is None else json.dumps(v, default=str) for v in column.to_pylist()], pa.string()
            )
        elif types.is_binary(kind) or types.is_large_binary(kind):
            column = pa.array(
                [None if v is None else f"\\x{v.hex()}" for v in column.to_pylist()], pa.string()
            )
        elif types.is_duration(kind):
            column = pa.array(
                [None if v is None else f"{v.total_seconds()} seconds" for v in column.to_pylist()],
                pa.string(),
            )
        elif types.is_null(kind):
            column = column.cast(pa.string())
        table = table.set_column(position, field.name, column)
    return table


def _array(values: list[Any] | None) -> str | None:
    """A list as Postgres's array literal."""
    if values is None:
        return None
    parts = []
    for value in values:
        if value is None:
            parts.append("NULL")
        elif isinstance(value, list):
            parts.append(_array(value) or "{}")
        else:
            text = str(value).replace("\\", "\\\\").replace('"', '\\"')
            parts.append(f'"{text}"')
    return "{" + ",".join(parts) + "}"
