"""Explains the rows of one unit (a member, a user) or one partition.

Shows the stored rows, what the query returns for them now, the runs that changed them, and stale or failed entries.
Read-only.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from dagster_backfills.engine.model import Query, Write
from dagster_backfills.engine.table.address import Address, keys_by_label
from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.engine.table.entries import key_text
from dagster_backfills.engine.table.names import ident
from dagster_backfills.engine.table.slice import Slice

_MOST = 20  # rows, keys and changes of each table
_ROWS = """
select {key} as key, to_jsonb(t) as row from {table} as t where {column}::text = any(%(texts)s::text[]) limit %(most)s
"""
_CHANGES = """
select b.run_id, r.undoes, b.committed_at, to_jsonb(j.before::{table}) as before,
    case when j.before is null then 'inserted' when j.after is null then 'deleted' else 'updated' end as change
from backfill.batches as b
inner join backfill.journal_entries as j on b.journal_id = j.journal_id
inner join backfill.runs as r on b.run_id = r.run_id and b.step = r.step
where b.asset = %(asset)s and j.key = %(key)s::text[]
    and (%(partitions)s::text[] = '{{}}' or b.partitions && %(partitions)s::text[])
order by j.id desc
limit %(most)s
"""
_DELETED_KEYS = """
select distinct j.key
from backfill.batches as b
inner join backfill.journal_entries as j on b.journal_id = j.journal_id
where b.asset = %(asset)s and j.key[{place}] = any(%(texts)s::text[])
    and (%(partitions)s::text[] = '{{}}' or b.partitions && %(partitions)s::text[])
limit %(most)s
"""
_OPEN = """
select f.asset, f.partition, f.unit, f.message, f.attempts, f.last_seen
from backfill.failures as f
where f.asset = any(%(assets)s) and f.resolved_at is null
    and (f.unit = %(unit)s or f.unit is null and f.partition = any(%(partitions)s))
order by f.last_seen desc
"""
_STALE = """
select s.asset, s.partition, s.since, s.changes from backfill.stale as s
where s.asset = any(%(assets)s) and s.partition = any(%(partitions)s) order by s.asset, s.partition
"""
_UNDONE = """
select u.asset, u.partition, u.run_id, u.undone_at from backfill.undone as u
where u.asset = any(%(assets)s) and u.partition = any(%(partitions)s) order by u.asset, u.partition
"""


@dataclass(frozen=True)
class Explained:
    """One table's part of an explanation.

    rows: the stored rows. now: the rows that the query returns now; None if it can't be run for a single unit.
    changes: the runs that changed the rows, newest first, with the row before each change.
    """

    asset: str
    rows: list[dict[str, Any]]
    now: list[dict[str, Any]] | None
    changes: list[dict[str, Any]]


@dataclass(frozen=True)
class Explanation:
    """Everything that is known about one unit or partition."""

    unit: str
    partitions: list[str]
    tables: list[Explained]
    failures: list[dict[str, Any]]
    stale: list[dict[str, Any]]
    undone: list[dict[str, Any]]

    @property
    def is_known(self) -> bool:
        """Whether anything was found."""
        in_tables = any(t.rows or t.now or t.changes for t in self.tables)
        return bool(self.failures or self.stale or self.undone or in_tables)


@dataclass(frozen=True)
class Part:
    """One table of a backfill: its write and address, its columns and keys."""

    write: Write
    table: Table

    @property
    def address(self) -> Address:
        assert self.write.address is not None
        return self.write.address

    def column(self, *, whole: bool) -> str | None:
        """The column that holds the unit, or with `whole` the partition key; None if there is none."""
        by = self.write.target.partition_by
        return (by if isinstance(by, str) else None) if whole else self.write.target.unit

    def keys_among(self, conn: psycopg.Connection[Any], keys: Sequence[str]) -> list[str]:
        """Returns those of the keys that the table has rows of. Reads the whole table."""
        by_label = _by_label(conn, self.address, keys)
        statement = sql.SQL("select distinct {0} from {1} as t where {0} = any(%(labels)s::text[])").format(
            self.address.label("t"), self.table.relation
        )
        return [by_label[label] for (label,) in conn.execute(statement, {"labels": list(by_label)})]


def explain(
    conn: psycopg.Connection[Any], parts: Sequence[Part], unit: str, keys: Sequence[str]
) -> Explanation:
    """Explains a unit, or a partition if `unit` is one of the partition `keys`. Runs in the caller's transaction."""
    whole = unit in keys
    partitions = [unit] if whole else _partitions_of(conn, parts, unit, keys)
    binds = {
        "assets": [part.write.target.asset for part in parts], "unit": unit, "partitions": partitions
    }  # fmt: skip
    cursor, explainer = conn.cursor(row_factory=dict_row), _Explainer(conn, unit, partitions, whole)
    return Explanation(
        unit,
        partitions,
        [explainer.explained(part) for part in parts],
        cursor.execute(_OPEN, binds).fetchall(),
        cursor.execute(_STALE, binds).fetchall(),
        cursor.execute(_UNDONE, binds).fetchall(),
    )


def _partitions_of(
    conn: psycopg.Connection[Any], parts: Sequence[Part], unit: str, keys: Sequence[str]
) -> list[str]:
    """The partitions that a unit belongs to, by its stored rows and by the statements that list units."""
    partitions: dict[str, None] = {}
    for part in parts:
        by_label = _by_label(conn, part.address, keys)
        column, by = part.column(whole=False), part.column(whole=True)
        if column is not None and by is not None:
            statement = sql.SQL("select distinct {}::text from {} as t where {}::text = %(unit)s").format(
                ident("t", by), part.table.relation, ident("t", column)
            )
            found = conn.execute(statement, {"unit": unit})
            partitions |= dict.fromkeys(by_label.get(label, label) for (label,) in found)
        units = part.write.units
        if units is not None:
            statement = sql.SQL(
                "select distinct q.partition::text from (\n{}\n) as q where q.unit::text = %(unit)s"
            ).format(sql.SQL(units.sql))
            binds = {**Slice(keys, [unit]).binds(part.address), "unit": unit, **units.params}
            found = conn.execute(statement, binds)
            partitions |= dict.fromkeys(by_label.get(label, label) for (label,) in found)
    return [key for key in partitions if key in set(keys)]


def _by_label(conn: psycopg.Connection[Any], address: Address, keys: Sequence[str]) -> dict[str, str]:
    """As `keys_by_label`, or each key by itself if the column's type rejects one of them."""
    with suppress(psycopg.DataError), conn.transaction():
        return keys_by_label(conn, address, keys)
    return {key: key for key in keys}


@dataclass(frozen=True)
class _Explainer:
    """Explains a unit, or with `whole` a partition, table by table. Lists have at most `_MOST` entries."""

    conn: psycopg.Connection[Any]
    unit: str
    partitions: list[str]
    whole: bool

    def explained(self, part: Part) -> Explained:
        rows = self._rows(part)
        keys = [row["key"] for row in rows if row["key"] is not None] or self._deleted_keys(part)
        return Explained(
            part.write.target.asset,
            [row["row"] for row in rows],
            self._computed(part),
            [change for key in keys for change in self._changes(part, key)],
        )

    def _rows(self, part: Part) -> list[dict[str, Any]]:
        column = part.column(whole=self.whole)
        if column is None:
            return []
        statement = sql.SQL(_ROWS).format(
            key=key_text(part.table, "t") if part.table.identity else sql.SQL("null::text[]"),
            table=part.table.relation,
            column=ident("t", column),
        )
        return self._fetch(statement, {"texts": self._texts(part)})

    def _texts(self, part: Part) -> list[str]:
        """The unit or partition, as its column stores it."""
        return list(_by_label(self.conn, part.address, [self.unit])) if self.whole else [self.unit]

    def _deleted_keys(self, part: Part) -> list[list[str]]:
        """The keys of deleted rows, from the journal. Only if the unit's column is part of the key."""
        column, identity = part.column(whole=self.whole), part.table.identity
        if column not in identity:
            return []
        statement = sql.SQL(_DELETED_KEYS).format(place=sql.SQL(f"{identity.index(column) + 1}"))
        binds = {"asset": part.write.target.asset, "partitions": self.partitions, "texts": self._texts(part)}
        return [row["key"] for row in self._fetch(statement, binds)]

    def _computed(self, part: Part) -> list[dict[str, Any]] | None:
        source = part.write.source
        if not isinstance(source, Query) or not self.partitions or not (self.whole or part.write.target.unit):
            return None
        slice_ = Slice(self.partitions, None if self.whole else [self.unit])
        statement = sql.SQL("select * from (\n{}\n) as q limit %(most)s").format(sql.SQL(source.sql))
        return self._fetch(statement, {**slice_.binds(part.address), **source.params})

    def _changes(self, part: Part, key: list[str]) -> list[dict[str, Any]]:
        binds = {"asset": part.write.target.asset, "partitions": self.partitions, "key": key}
        return self._fetch(sql.SQL(_CHANGES).format(table=part.table.relation), binds)

    def _fetch(self, statement: sql.Composed, binds: dict[str, Any]) -> list[dict[str, Any]]:
        cursor = self.conn.cursor(row_factory=dict_row)
        return cursor.execute(statement, {**binds, "most": _MOST}, prepare=False).fetchall()
