"""The units of partitions: how many there are, and their keys in order, a slice at a time."""

from collections.abc import Iterator, Sequence

import psycopg
from psycopg import sql

from dagster_backfills.lib.engine.prepared import PreparedWrite, raw
from dagster_backfills.lib.engine.sizing import BatchSize


def _binds(write: PreparedWrite, keys: Sequence[str]) -> dict[str, object]:
    units = write.units()
    return {"unit_keys": None, "run_id": "", **write.address.binds(keys), **(units.params if units else {})}


def count_units(conn: psycopg.Connection, write: PreparedWrite, keys: Sequence[str]) -> dict[str, int]:
    """Units that are due, by partition."""
    units = write.units()
    if units is None or not keys:
        return {}
    statement = sql.SQL("select q.partition::text, count(*) from (\n{}\n) as q group by 1").format(
        raw(units.sql)
    )
    counted: dict[str, int] = dict(conn.execute(statement, _binds(write, keys)).fetchall())
    conn.commit()
    return counted


def stream_units(
    conn: psycopg.Connection, write: PreparedWrite, key: str, after: str | None, size: BatchSize
) -> Iterator[list[str]]:
    """Keys of the units that are due or in the table, from behind `after` on, in slices of the current size.

    A cursor that outlives its transaction holds them on the server: neither this process nor a snapshot has to.
    """
    units, unit = write.units(), write.merge_unit
    if units is None or unit is None:
        return
    statement = sql.SQL(
        'select distinct u.unit collate "C" from (\n'
        "select q.unit::text as unit from (\n{due}\n) as q\n"
        "union all select t.{unit}::text from {table} as t where {inside}\n"
        ') as u where (%(after)s::text is null or u.unit collate "C" > %(after)s) order by 1'
    ).format(
        due=raw(units.sql),
        unit=sql.Identifier(unit),
        table=sql.Identifier(write.table.schema, write.table.name),
        inside=write.address.predicate("t"),
    )
    with conn.cursor(name="backfill_units", withhold=True) as cursor:
        cursor.execute(statement, {**_binds(write, [key]), "after": after})
        conn.commit()
        while rows := cursor.fetchmany(size.units):
            conn.commit()
            yield [row[0] for row in rows]
