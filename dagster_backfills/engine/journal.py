"""The journal: the previous version of each row that a batch changed, written in the batch's own transaction.

The statements that change the rows write its entries (`table/merge`). This module describes the table that entries
belong to, and prunes old entries. Not here: restoring rows (`undo`).
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from pydantic import TypeAdapter

from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.errors import UserError

KEEP_DAYS = 30
_PRUNE_LIMIT = 1_000  # journal rows per transaction, of up to four megabytes each

_EXPIRED = """
select b.batch_id, b.asset, b.journal_id from backfill.batches as b
where b.journal_id is not null and b.committed_at < now() - make_interval(days => %(days)s)
order by b.committed_at limit 1
"""
_DELETE = """
delete from backfill.journal where ctid = any(array(
    select j.ctid from backfill.journal as j where j.journal_id = %(journal_id)s limit %(limit)s
)) returning cardinality(keys)
"""
_MARK_PRUNED = """
update backfill.batches set journal_id = null, journal = null
where batch_id = %(batch_id)s and asset = %(asset)s
"""


@dataclass(frozen=True)
class Shape:
    """The table that journal entries belong to, as it was when they were written: its columns and its key.

    touched: the column that each write sets to now; it is ignored when rows are compared.
    """

    schema: str
    name: str
    columns: tuple[tuple[str, str], ...]  # names and types
    key: tuple[str, ...]
    touched: str

    @classmethod
    def of(cls, table: Table, touched: str) -> "Shape":
        columns = tuple((column.name, column.type) for column in table.columns)
        return cls(table.schema, table.name, columns, table.identity, touched)

    def check_unaltered(self, table: Table) -> None:
        """Raises UserError if the table's columns or key have changed since the entries were written."""
        before, now = dict(self.columns), {column.name: column.type for column in table.columns}
        added = [name for name in now if name not in before]
        dropped = [name for name in before if name not in now]
        retyped = [name for name in now if name in before and now[name] != before[name]]
        changes = [f"{what} {', '.join(names)}" for what, names in
                   (("now has", added), ("lacks", dropped), ("has another type for", retyped)) if names]  # fmt: skip
        if changes or list(now) != list(before):
            raise UserError(
                f"Table {self.schema}.{self.name} was altered since the run: "
                f"it {'; '.join(changes) or 'has its columns in another order'}.",
                hint="The journal's rows no longer fit the table; nothing was changed. "
                "Alter the table back, or restore the rows by hand.",
            )
        if table.identity != self.key:
            raise UserError(
                f"Table {self.schema}.{self.name} was altered since the run: "
                f"({', '.join(self.key)}) is no longer its key.",
                hint="The journal's rows can't be found without it; nothing was changed.",
            )


SHAPE = TypeAdapter(Shape)  # for JSON in `backfill.batches.journal`


def new_id() -> int:
    """Returns a random ID for one batch's journal entries of one table."""
    return secrets.randbits(62)


def prune(conn: psycopg.Connection[Any], days: int = KEEP_DAYS, limit: int = _PRUNE_LIMIT) -> Iterator[int]:
    """Deletes the journal of batches older than `days`, `limit` journal rows per transaction.

    Yields the number of deleted entries after each commit. A run whose journal was pruned can't be undone.
    """
    while (expired := conn.execute(_EXPIRED, {"days": days}).fetchone()) is not None:
        batch_id, asset, journal_id = expired
        deleted = conn.execute(_DELETE, {"journal_id": journal_id, "limit": limit}).fetchall()
        if len(deleted) < limit:
            conn.execute(_MARK_PRUNED, {"batch_id": batch_id, "asset": asset})
        conn.commit()
        yield sum(entries for (entries,) in deleted)
    conn.commit()
