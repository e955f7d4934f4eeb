"""Loads rows into an empty slice with COPY directly into the table, without staging and merging.

Refused if the merge might do anything but insert.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from dagster_backfills.engine.table.address import Address, keys_by_label
from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.engine.table.entries import write_entries
from dagster_backfills.engine.table.merge import Merge
from dagster_backfills.engine.table.names import columns, ident, type_name
from dagster_backfills.engine.table.slice import Slice

if TYPE_CHECKING:
    import pyarrow as pa


def is_empty(
    conn: psycopg.Connection,
    table: Table,
    address: Address,
    key: str,
    unit: str | None = None,
    after: str | None = None,
) -> bool:
    """Whether the table has no rows of this partition; with `after`, none in later units."""
    behind: sql.Composable = sql.SQL("")
    if unit is not None and after is not None:
        behind = sql.SQL(' and {}::text collate "C" > %(after)s').format(ident("t", unit))
    statement = sql.SQL("select exists (select from {} as t where {}{})").format(
        table.relation, address.predicate("t"), behind
    )
    row = conn.execute(statement, {**address.binds([key]), "after": after}, prepare=False).fetchone()
    return row == (False,)


def copy_into(
    conn: psycopg.Connection,
    merge: Merge,
    arrays: "Sequence[pa.Array | pa.ChunkedArray]",
    slice_: Slice,
) -> int | None:
    """Loads the rows of one partition and returns their number. Returns None, with nothing written, if a merge is
    needed.

    arrays: the columns of the rows, in the order of `merge.columns`.
    """
    from dagster_backfills.engine.table.frames import copy_rows  # loads pandas and Arrow

    by = merge.target.partition_by
    if not isinstance(by, str) or by not in merge.columns or merge.touches or not merge.key:
        return None
    if any(not merge.table.column(name).not_null for name in merge.key):
        return None
    unit = merge.target.unit
    if unit in merge.columns and arrays[merge.columns.index(unit)].null_count:
        return None
    if len(arrays[0]) == 0:
        return 0
    into = sql.SQL("copy {} ({}) from stdin (format csv)").format(
        merge.table.relation, columns("", merge.columns)
    )
    with conn.transaction():
        if not _all_of(conn, merge, by, arrays[merge.columns.index(by)], slice_.keys[0]):
            return None
        copied = copy_rows(conn, into, arrays)
        if merge.journaled and _journal(conn, merge, slice_) != copied:
            raise psycopg.Rollback  # another session has inserted rows meanwhile, so a merge is needed
        return copied
    return None


def _journal(conn: psycopg.Connection, merge: Merge, slice_: Slice) -> int:
    """Journals all rows of the slice, which was empty before, and returns their number."""
    statement = sql.SQL(
        "with inserted as (select %(key)s as label{} from {} as t where {})\n{}\nreturning cardinality(keys)"
    ).format(
        merge.entry(after="t"),
        merge.table.relation,
        merge.inside("t", slice_.units is not None),
        write_entries(["inserted"]),
    )
    binds = {**slice_.binds(merge.address), "key": slice_.keys[0]}
    return sum(entries for (entries,) in conn.execute(statement, binds, prepare=False))


def _all_of(conn: psycopg.Connection, merge: Merge, by: str, values: Any, key: str) -> bool:
    """Whether all rows belong to the partition, by the table's own partitioning."""
    distinct = values.unique()
    if len(distinct) != 1 or not distinct[0].is_valid:
        return False
    statement = sql.SQL("select {label} from (select %(value)s::text::{type} as {column}) as s").format(
        label=merge.address.label("s"), type=type_name(merge.table.column(by).cast), column=ident(by)
    )
    binds = {**merge.address.binds([key]), "value": str(distinct[0].as_py())}
    row = conn.execute(statement, binds).fetchone()
    return row is not None and keys_by_label(conn, merge.address, [key]).get(row[0]) == key
