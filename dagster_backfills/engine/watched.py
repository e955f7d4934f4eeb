"""A source table whose changes make partitions stale; detects changed rows by their transaction ID (`xmin`).

Each row stores the ID of the transaction that wrote it. Rows written since the last poll are the changed ones. Deleted
rows are not detected. Not here: triggers (`triggers`), processing stale partitions (`selection`, `runner`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from dagster_backfills.errors import UserError

# `xmin` has 32 bits and wraps around. Over a distance of more than 2^31, older and newer are indistinguishable.
_HALF = 2**31
_POSITIONS = """
select
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
    (select p.position::text::bigint from backfill.source_positions as p where p.backfill = %s and p.source = %s)
"""
_HAVE_ROWS = """
select bool_and(c.relkind in ('r', 'p', 'm')) from pg_class as c
where c.oid = to_regclass(%(table)s) or c.oid in (select t.relid from pg_partition_tree(to_regclass(%(table)s)) as t)
"""
# Rows written by transactions that were in progress at the last poll, or began after it. Compares 32-bit IDs.
_SINCE = "age(s.xmin) between 0 and age({position}::xid)"
_MARK = """with changed_rows as (select s.* from {table} as s where {since}),
keys as (select array_agg(distinct k::text) as keys from ({select}
) as q (k) where k is not null)
select count(backfill.mark_stale(a, keys.keys)), max(cardinality(keys.keys)) from keys, unnest({assets}::text[]) as a
where keys.keys is not null"""
_LAST_POLL = """
select min(p.polled_at) from backfill.source_positions as p
where p.backfill = %(backfill)s and p.source = any(%(sources)s::text[])
having count(*) = cardinality(%(sources)s::text[])
"""
_SAVE_POSITION = """
insert into backfill.source_positions (backfill, source, position) values (%s, %s, %s::text::xid8)
on conflict (backfill, source) do update set position = excluded.position, polled_at = clock_timestamp()
"""


@dataclass(frozen=True)
class WatchedTable:
    """One source table of one backfill.

    select: SQL without parameters that returns the partition keys of the rows in `changed_rows`. assets: the assets to
    mark stale. by: the column or statement that the declaration names, for error messages.
    """

    backfill: str
    schema: str
    name: str
    select: str
    assets: Sequence[str]
    by: str

    @property
    def source(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def table(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    def check(self, conn: psycopg.Connection[Any]) -> None:
        """Raises UserError if the select is invalid. It is run over no rows, with a trigger's search path."""
        probe = sql.SQL("with changed_rows as (select * from {} limit 0) select k::text from ({}\n) as q (k)")
        try:
            with conn.transaction(force_rollback=True):
                conn.execute("set local search_path = pg_catalog")
                conn.execute(probe.format(self.table, sql.SQL(self.select)))
        except psycopg.errors.InsufficientPrivilege as error:
            raise UserError(
                f"stale_when {self.source}: {error.diag.message_primary}.",
                hint="Connect as a role that may read the table.",
            ) from error
        except psycopg.Error as error:
            raise UserError(
                f"stale_when {self.source}: {error.diag.message_primary or error}.",
                hint=f"{self.by!r} must be a column of it, or a statement that gives the keys of `changed_rows` and "
                "names each other table with its schema.",
            ) from error

    def require_rows(self, conn: psycopg.Connection[Any]) -> None:
        """Raises UserError for a view or a foreign table: their rows have no `xmin`."""
        if conn.execute(_HAVE_ROWS, {"table": self.table.as_string(None)}).fetchone() == (False,):
            raise UserError(
                f"stale_when {self.source}: new rows of a view or a foreign table can't be detected.",
                hint="Declare a statement with `due` instead.",
            )

    def mark_changes(self, conn: psycopg.Connection[Any]) -> int:
        """Marks partitions of rows that changed since the last poll stale; at the first poll, of all rows.

        Runs in the current transaction. Returns the number of partitions. Raises UserError for a view or a foreign
        table.
        """
        self.require_rows(conn)
        name = [self.backfill, self.source]
        now, last = conn.execute(_POSITIONS, name).fetchone() or (0, None)
        # A position ahead of this server comes from a restored dump. It is ignored.
        since: sql.Composable = sql.SQL("true")
        if last is not None and now - _HALF < last <= now:
            since = sql.SQL(_SINCE).format(position=sql.Literal(str(last % 2**32)))
        parts = {"table": self.table, "since": since, "select": sql.SQL(self.select)}
        row = conn.execute(sql.SQL(_MARK).format(**parts, assets=sql.Literal(list(self.assets)))).fetchone()
        conn.execute(_SAVE_POSITION, [*name, now])
        return (row[1] or 0) if row else 0


def last_poll(conn: psycopg.Connection[Any], tables: Sequence[WatchedTable]) -> datetime | None:
    """Returns when the tables of one backfill were last polled, or None if one of them never was."""
    binds = {"backfill": tables[0].backfill, "sources": [table.source for table in tables]}
    row = conn.execute(_LAST_POLL, binds).fetchone()
    return row[0] if row else None
