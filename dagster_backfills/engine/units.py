"""The units of partitions: how many there are, and their keys in order, a slice at a time."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

import psycopg
from psycopg import sql

from dagster_backfills.engine.prepared import PreparedWrite
from dagster_backfills.engine.sizing import BatchSize
from dagster_backfills.engine.table.names import ident
from dagster_backfills.engine.table.slice import Slice


def _binds(write: PreparedWrite, keys: Sequence[str]) -> dict[str, object]:
    units = write.units()
    return {**Slice(keys).binds(write.address), **(units.params if units else {})}


def count_units(conn: psycopg.Connection, write: PreparedWrite, keys: Sequence[str]) -> dict[str, int]:
    """Units that are due, by partition."""
    units = write.units()
    if units is None or not keys:
        return {}
    statement = sql.SQL("select q.partition::text, count(*) from (\n{}\n) as q group by 1").format(
        sql.SQL(units.sql)
    )
    counted: dict[str, int] = dict(conn.execute(statement, _binds(write, keys)).fetchall())
    conn.commit()
    return counted


def stream_units(
    conn: psycopg.Connection, writes: Sequence[PreparedWrite], key: str, after: str | None, size: BatchSize
) -> Iterator[list[str]]:
    """Keys of the units that are due or may be in a table, from behind `after` on, in slices of the current size.

    A cursor that outlives its transaction holds them on the server: neither this process nor a snapshot has to.
    """
    parts: list[sql.Composable] = []
    binds: dict[str, object] = {"after": after}
    for write in writes:
        units, unit = write.units(), write.unit
        if units is not None:
            parts.append(sql.SQL("select q.unit::text as unit from (\n{}\n) as q").format(sql.SQL(units.sql)))
        if unit is not None and write.address.stored:
            parts.append(
                sql.SQL("select {}::text from {} as t where {}").format(
                    ident("t", unit),
                    write.table.relation,
                    write.address.candidates("t"),
                )
            )
        binds |= _binds(write, [key])
    # Sorted they come twice in a row, and are told apart here: a DISTINCT would put all of them into a hash before.
    statement = sql.SQL(
        'select u.unit collate "C" from (\n{}\n) as u '
        'where %(after)s::text is null or u.unit collate "C" > %(after)s order by 1'
    ).format(sql.SQL("\nunion all\n").join(parts))
    cursor = conn.cursor(name="backfill_units", withhold=True)
    try:
        cursor.execute(statement, binds)
        conn.commit()
        slice_: dict[str, None] = {}
        last = after
        while rows := cursor.fetchmany(max(size.units - len(slice_), 1)):
            conn.commit()
            slice_ |= dict.fromkeys(key for (key,) in rows if key is not None and key != last)
            if len(slice_) >= size.units:
                yield list(slice_)
                last, slice_ = next(reversed(slice_)), {}
        if slice_:
            yield list(slice_)
    finally:
        with suppress(psycopg.Error):  # a statement that failed at its commit has left no cursor
            cursor.close()
