"""The journal: what stood before, for each row that a batch changed, in the batch's own transaction.

Its entries are written by the statements that change the rows (`table/merge`). Here: which table they are of, how
they are read again, and how long they are kept. Not here: what is made of them (`undo`).
"""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.errors import UserError

KEEP_DAYS = 30
_PRUNED_AT_ONCE = 1_000  # rows of up to four megabytes

_EXPIRED = """
select b.batch_id, b.asset, b.journal_id from backfill.batches as b
where b.journal_id is not null and b.committed_at < now() - make_interval(days => %(days)s)
order by b.committed_at limit 1
"""
_FORGET = """
delete from backfill.journal where ctid = any(array(
    select j.ctid from backfill.journal as j where j.journal_id = %(journal_id)s limit %(at_once)s
)) returning cardinality(keys)
"""
_FORGOTTEN = """
update backfill.batches set journal_id = null, journal = null
where batch_id = %(batch_id)s and asset = %(asset)s
"""


@dataclass(frozen=True)
class Shape:
    """The table that entries are of, as it was when they were written: how its rows are told apart and compared.

    touched: the column that is no difference in itself.
    """

    schema: str
    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    touched: str

    @classmethod
    def of(cls, table: Table, touched: str) -> "Shape":
        columns = {column.name: column.type for column in table.columns}
        return cls(table.schema, table.name, columns, table.identity, touched)

    @classmethod
    def read(cls, noted: Mapping[str, Any]) -> "Shape":
        columns = {name: kind for name, kind in noted["columns"]}
        return cls(noted["schema"], noted["name"], columns, tuple(noted["key"]), noted["touched"])

    def note(self) -> dict[str, Any]:
        """The same as JSON, whose objects have no order."""
        return {
            "schema": self.schema, "name": self.name, "key": list(self.key), "touched": self.touched,
            "columns": [[name, kind] for name, kind in self.columns.items()],
        }  # fmt: skip

    def refuse_altered(self, table: Table) -> None:
        """Raise UserError where the table's columns are no more those that the entries have."""
        now = {column.name: column.type for column in table.columns}
        more = [name for name in now if name not in self.columns]
        gone = [name for name in self.columns if name not in now]
        other = [name for name in now if name in self.columns and now[name] != self.columns[name]]
        said = [f"{what} {', '.join(names)}" for what, names in
                (("now has", more), ("lacks", gone), ("has another type for", other)) if names]  # fmt: skip
        if said or list(now) != list(self.columns):
            raise UserError(
                f"Table {self.schema}.{self.name} was altered since: it {'; '.join(said) or 'has another order'}.",
                hint="What stood before does not fit it any more; nothing was changed. Alter it back, or mend by hand.",
            )
        if table.identity != self.key:
            raise UserError(
                f"Table {self.schema}.{self.name} was altered since: ({', '.join(self.key)}) is not its key any more.",
                hint="Rows can't be found again without it, and nothing was changed.",
            )


def new_id() -> int:
    """A number for one batch's entries for one table."""
    return secrets.randbits(62)


def prune(
    conn: psycopg.Connection[Any], days: int = KEEP_DAYS, at_once: int = _PRUNED_AT_ONCE
) -> Iterator[int]:
    """Forget entries of batches older than so many days, some at a time; yields how many after each commit."""
    while (expired := conn.execute(_EXPIRED, {"days": days}).fetchone()) is not None:
        batch_id, asset, journal_id = expired
        gone = conn.execute(_FORGET, {"journal_id": journal_id, "at_once": at_once}).fetchall()
        if len(gone) < at_once:
            conn.execute(_FORGOTTEN, {"batch_id": batch_id, "asset": asset})
        conn.commit()
        yield sum(entries for (entries,) in gone)
    conn.commit()
