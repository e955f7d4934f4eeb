"""Computed rows that the table has already: told apart by reading it, and neither staged nor merged.

It saves work alone. What it can't compare for certain counts as different, and the merge has its say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from dagster_backfills.lib.postgres.arrays import TextArray
from dagster_backfills.lib.postgres.catalog import Column
from dagster_backfills.lib.postgres.merge import Merge
from dagster_backfills.lib.postgres.names import columns, ident

if TYPE_CHECKING:
    import pyarrow as pa

_WHOLE_NUMBERS = {"int2", "int4", "int8"}
_EXACT_DIGITS = 15  # numbers of so many decimal digits are all different as floating point numbers


@dataclass(frozen=True)
class Sifted:
    """Rows that may have to be written, and the units that they are of (None: every unit of the partition).

    unchanged: rows that were left out because the table has them as they are, their units with them.
    """

    data: Any
    units: Sequence[str] | None
    unchanged: int = 0


def sift(
    conn: psycopg.Connection,
    merge: Merge,
    arrays: "Sequence[Any]",
    units: Sequence[str],
    binds: Mapping[str, Any],
) -> Sifted:
    """Leave out the units whose rows in the table are those that are given.

    arrays: the merge's columns, in their order. units: what the rows are about. binds: of the slice.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    given = pa.table(list(arrays), names=list(merge.columns))
    if merge.mode != "upsert" or merge.unit not in merge.columns or not _comparable(merge, given):
        return Sifted(given, units)
    there = _there(conn, merge, given.schema, {**binds, "unit_keys": units})
    in_order = [(name, "ascending") for name in merge.key]
    given, there = given.sort_by(in_order), there.sort_by(in_order)
    if len(given) != len(there) or not pc.all(_same(given, there, merge.key)).as_py():
        return Sifted(given, units)
    differs = pc.invert(_same(given, there, merge.values))
    unit = given.column(merge.unit).cast(pa.string())
    changed = unit.filter(differs).unique()
    data = given.filter(pc.is_in(unit, changed))
    return Sifted(data, TextArray(changed.to_pylist()), len(given) - len(data))


def _comparable(merge: Merge, given: "pa.Table") -> bool:
    """Whether equal values of the frame's types are surely equal in the table's types."""
    return all(_exact(field.type, merge.table.column(field.name)) for field in given.schema)


def _exact(kind: "pa.DataType", column: Column) -> bool:
    import pyarrow.types as types

    if types.is_string(kind) or types.is_large_string(kind):
        return True  # text that the database itself would give for the value
    if types.is_integer(kind):
        return column.base_type in _WHOLE_NUMBERS
    if types.is_boolean(kind):
        return column.base_type == "bool"
    if types.is_float64(kind):
        return column.base_type == "float8" or _digits(column) <= _EXACT_DIGITS
    return False


def _digits(column: Column) -> int:
    """Decimal digits that a column of type numeric can hold."""
    limits = column.cast.removeprefix("numeric(").removesuffix(")").split(",")
    return int(limits[0]) if column.base_type == "numeric" and limits[0].isdigit() else _EXACT_DIGITS + 1


def _there(
    conn: psycopg.Connection, merge: Merge, schema: "pa.Schema", binds: Mapping[str, Any]
) -> "pa.Table":
    """The slice's rows as the table has them, in the frame's types."""
    import pyarrow as pa
    import pyarrow.csv as csv

    statement = sql.SQL("copy (select {} from {} as o where {}) to stdout (format csv)").format(
        columns("o", merge.columns), ident(merge.table.schema, merge.table.name), merge.slice("o", units=True)
    )
    sink = pa.BufferOutputStream()
    with conn.cursor() as cursor, cursor.copy(statement, binds) as copy:
        for block in copy:
            sink.write(block)
    text = sink.getvalue()
    if not text.size:
        return schema.empty_table()
    return csv.read_csv(
        pa.BufferReader(text),
        csv.ReadOptions(use_threads=False, column_names=schema.names),
        csv.ParseOptions(newlines_in_values=True),
        csv.ConvertOptions(
            column_types=schema,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )


def _same(left: "pa.Table", right: "pa.Table", names: Sequence[str]) -> "pa.ChunkedArray":
    """Row by row, whether all of these columns are equal; two missing values are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    same: Any = pa.repeat(True, len(left))
    for name in names:
        one, other = left.column(name), right.column(name)
        both_missing = pc.and_(pc.is_null(one), pc.is_null(other))
        same = pc.and_(same, pc.or_(pc.fill_null(pc.equal(one, other), False), both_missing))
    return same
