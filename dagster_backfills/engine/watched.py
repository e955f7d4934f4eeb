"""A source table whose changes make partitions stale, and following it without triggers, by its rows' transactions.

Every row says which transaction wrote it. Those that were written since the last look are the changed ones, whoever
wrote them and however. Not seen: rows that are deleted. Not here: triggers, and what is done about what is stale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from dagster_backfills.errors import UserError

# A transaction's number in a row has 32 bits: beyond half of them, older and newer can't be told apart.
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
# A row of a transaction that was under way at the last look, or began after it. Two numbers of 32 bits are compared.
_SINCE = "age(s.xmin) between 0 and age({position}::xid)"
_MARK = """with changed_rows as (select s.* from {table} as s where {since}),
keys as (select array_agg(distinct k::text) as keys from ({select}
) as q (k) where k is not null)
select count(backfill.mark_stale(a, keys.keys)), max(cardinality(keys.keys)) from keys, unnest({assets}::text[]) as a
where keys.keys is not null"""
_KEEP = """
insert into backfill.source_positions (backfill, source, position) values (%s, %s, %s::text::xid8)
on conflict (backfill, source) do update set position = excluded.position, looked_at = clock_timestamp()
"""


@dataclass(frozen=True)
class WatchedTable:
    """One source table of one backfill.

    select: SQL that gives the partitions' keys of the rows in `changed_rows`, and has no binds. assets: what is stale
    then. by: how the select is named where it stands, for messages.
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
        """Raise UserError where changes would fail on it: the keys are asked of no row, as a trigger would ask."""
        probe = sql.SQL("with changed_rows as (select * from {} limit 0) select k::text from ({}\n) as q (k)")
        try:
            with conn.transaction(force_rollback=True):
                conn.execute("set local search_path = pg_catalog")
                conn.execute(probe.format(self.table, sql.SQL(self.select)))
        except psycopg.Error as error:
            raise UserError(
                f"stale_when {self.source}: {error.diag.message_primary or error}.",
                hint=f"{self.by!r} must be a column of it, or a statement that gives the keys of `changed_rows` and "
                "names each other table with its schema.",
            ) from error

    def require_rows(self, conn: psycopg.Connection[Any]) -> None:
        """Raise UserError for what has no rows of its own, that would tell their transactions: a view, say."""
        if conn.execute(_HAVE_ROWS, {"table": self.table.as_string(None)}).fetchone() == (False,):
            raise UserError(
                f"stale_when {self.source}: a view or a foreign table does not tell which of its rows are new.",
                hint="Name a statement with `due` instead.",
            )

    def look(self, conn: psycopg.Connection[Any]) -> int:
        """Mark what has changed since the last look; at the first look, everything. Returns how many partitions.

        In the transaction that `conn` is in. Raises UserError for what has no transactions: a view, a foreign table.
        """
        self.require_rows(conn)
        name = [self.backfill, self.source]
        now, last = conn.execute(_POSITIONS, name).fetchone() or (0, None)
        # A position of this server's future came with a restored dump.
        since: sql.Composable = sql.SQL("true")
        if last is not None and now - _HALF < last <= now:
            since = sql.SQL(_SINCE).format(position=sql.Literal(str(last % 2**32)))
        parts = {"table": self.table, "since": since, "select": sql.SQL(self.select)}
        found = conn.execute(sql.SQL(_MARK).format(**parts, assets=sql.Literal(list(self.assets)))).fetchone()
        conn.execute(_KEEP, [*name, now])
        return (found[1] or 0) if found else 0
