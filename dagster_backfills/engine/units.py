"""Counts the units of partitions, and streams their keys in order, slice by slice."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress

import psycopg
from psycopg import sql

from dagster_backfills.engine.failures import NullUnitError
from dagster_backfills.engine.prepared import PreparedWrite
from dagster_backfills.engine.sizing import BatchSize
from dagster_backfills.engine.table.address import keys_by_label
from dagster_backfills.engine.table.names import ident
from dagster_backfills.engine.table.slice import Slice


def _binds(write: PreparedWrite, keys: Sequence[str]) -> dict[str, object]:
    units = write.units()
    return {**Slice(keys).binds(write.address), **(units.params if units else {})}


def count_units(conn: psycopg.Connection, write: PreparedWrite, keys: Sequence[str]) -> dict[str, int]:
    """Returns the number of due units by partition; empty if the write lists no units."""
    units = write.units()
    if units is None or not keys:
        return {}
    statement = sql.SQL("select q.partition::text, count(*) from (\n{}\n) as q group by 1").format(
        sql.SQL(units.sql)
    )
    by_label = keys_by_label(conn, write.address, keys)
    counts: Counter[str] = Counter()
    for label, units_of_it in conn.execute(statement, _binds(write, keys)):
        counts[str(by_label.get(label, label))] += units_of_it
    conn.commit()
    return counts


def stream_units(
    conn: psycopg.Connection, writes: Sequence[PreparedWrite], key: str, after: str | None, size: BatchSize
) -> Iterator[list[str]]:
    """Yields slices of unit keys, in order, starting after `after`: units that are due and units stored in the tables.
    Raises NullUnitError before the first slice if a unit that is due is null.

    size: read again for each slice. A cursor WITH HOLD keeps the keys on the server, so they occupy neither this
    process's memory nor a snapshot.
    """
    parts: list[sql.Composable] = []
    binds: dict[str, object] = {"after": after}
    for write in writes:
        units, unit = write.units(), write.unit
        if units is not None:
            parts.append(sql.SQL("select q.unit::text as unit from (\n{}\n) as q").format(sql.SQL(units.sql)))
        if unit is not None and write.address.stored:
            parts.append(
                sql.SQL("select {0}::text from {1} as t where {2} and {0} is not null").format(
                    ident("t", unit),
                    write.table.relation,
                    write.address.candidates("t"),
                )
            )
        binds |= _binds(write, [key])
    # Duplicates are adjacent after the sort and are removed below. DISTINCT would first hash all units.
    statement = sql.SQL(
        'select u.unit collate "C" from (\n{}\n) as u '
        'where (u.unit collate "C" > %(after)s::text) is not false order by 1 nulls first'
    ).format(sql.SQL("\nunion all\n").join(parts))
    cursor = conn.cursor(name="backfill_units", withhold=True)
    try:
        cursor.execute(statement, binds)
        conn.commit()
        slice_: dict[str, None] = {}
        last = after
        while rows := cursor.fetchmany(max(size.units - len(slice_), 1)):
            conn.commit()
            if rows[0] == (None,):
                raise NullUnitError(" or ".join(write.asset for write in writes))
            slice_ |= dict.fromkeys(key for (key,) in rows if key != last)
            if len(slice_) >= size.units:
                yield list(slice_)
                last, slice_ = next(reversed(slice_)), {}
        if slice_:
            yield list(slice_)
    finally:
        with suppress(psycopg.Error):  # if the commit failed, the cursor does not exist
            cursor.close()
