"""The statements that put a source's rows into a table's slice, one a write mode. They are composed, not run, here.

Each returns one row a partition: its label, rows from the source, inserted, updated and deleted, and (in the last
column) a key that the source has twice or without a value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg import sql

from dagster_backfills.engine.model import Target
from dagster_backfills.engine.table.address import Address
from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.engine.table.counting import with_counts
from dagster_backfills.engine.table.merge_pieces import Pieces
from dagster_backfills.errors import UserError

# A key that stands for two rows, or for none: written as it is, the one would come and go at random.
_BAD_KEY = """
select row({s_key})::text as key from source as s group by {s_key} having count(*) > 1{or_empty} limit 1"""
# Rows that are new or differ, each with the version that stands there. In the key's order, so that two writers of the
# same rows meet in the same order.
_CHANGED = """
select s.*, o.{seen}{o_before} from source as s
left join (select o.*, o.ctid as {seen}{before} from {t} as o) as o on {o_is_s}
where o.{seen} is null or {differs}
order by {s_key}"""
# A slice of units is small beside its partition: each row is looked up by its key. LIMIT keeps the planner from reading
# the whole partition instead, once a slice.
_CHANGED_OF_UNITS = """
select s.*, o.{seen}{o_before} from source as s
left join lateral (select o.*, o.ctid as {seen}{before} from {t} as o where {o_is_s} limit 1) as o on true
where o.{seen} is null or {differs}
order by {s_key}"""
# Only over the version that this statement has seen. A row that another transaction has written since then is newer
# than what was computed here, and stays: its version is at another place by then, which is what an update that waited
# for it looks at again.
_UPDATED = """
update {t} as t set {set} from changed as c where t.ctid = c.{seen} and {t_is_c}
returning {updated_label} as label{updated_entry}"""
_NEW = "select {c_row} from changed as c where c.{seen} is null"
_LEAVING = """
select {o_key}, o.ctid as {seen} from {t} as o
where {o_inside} and not exists (select from source as s where {o_is_s})"""
_GONE = """
delete from {t} as t using leaving as g where t.ctid = g.{seen} and {t_is_g}
returning {t_label} as label{gone_entry}"""
# The sort stands between looking and writing: planned while the table is empty, the look-up is a scan of it for each
# row, which must not grow with what this very statement writes. In key order two batches can't deadlock.
_MISSING = """
select {s_row} from source as s where not exists (select from {t} as o where {o_is_s})
order by {s_key}"""
_ALL = "select {s_row} from source as s order by {s_key}"
_ON_CONFLICT = "on conflict ({key}) do nothing returning {new_label}{new_entry}"
_BY_SOURCE = "select {s_label} as label{entry} from new as t inner join source as s on {t_is_s}"
_CLEARED = "delete from {t} as t where {t_inside} returning {t_label} as label{gone_entry}"
_REPLACED = """
insert into {t} as t ({into}) select {s_row} from ({source}) as s returning {t_label} as label{new_entry}"""


@dataclass(frozen=True)
class Merge(Pieces):
    """One table's merge: what is known of it before the slice is."""

    @classmethod
    def plan(
        cls,
        table: Table,
        address: Address,
        target: Target,
        columns: Sequence[str],
        journaled: bool,
    ) -> "Merge":
        """Check the source's columns against the table. Raises UserError that names what does not fit."""
        name = f"{table.schema}.{table.name}"
        for position, column in enumerate(columns):
            if table.column(column).managed:
                raise UserError(
                    f"Column {column!r} of {name} is filled by the database itself.",
                    hint="Leave it out of the asset's query or frame.",
                )
            if column in columns[:position]:
                raise UserError(
                    f"The source of {name} has two columns of the name {column!r}.",
                    hint="Rename one of them.",
                )
        key = table.key_among(columns, target.key)
        if target.mode != "replace" and not key:
            raise UserError(
                f"Table {name} has no unique constraint on columns that the asset gives "
                f"({', '.join(columns)}), so that its rows can't be told apart.",
                hint="Add a primary key in a migration, return the key's columns, or write with mode 'replace'.",
            )
        by = target.partition_by or {}
        needed = [*([by] if isinstance(by, str) else by.values()), *key]
        for column in needed:
            if column not in columns:
                raise UserError(
                    f"The source of {name} does not give {column!r}, by which its rows are told apart; it gives "
                    f"{', '.join(columns)}.",
                    hint="Let it give each column of the partition and of the key.",
                )
        if target.unit is not None:
            table.column(target.unit)
        return cls(table, address, target, tuple(columns), key, journaled)

    def statement(self, source: sql.Composable, *, units: bool, only_missing: bool = False) -> sql.Composed:
        """The whole statement for a source SELECT.

        units: only the units in the bind `unit_keys`. only_missing: the source gives hardly a row that is there.
        """
        if self.target.mode == "replace":
            return self._counted({"inserted": _REPLACED}, units, source)
        texts = {"source": "{source}"}
        if self.target.mode == "insert_missing":
            texts |= self._inserted(_ALL if only_missing else _MISSING)
        else:
            texts |= {"bad_key": _BAD_KEY, "changed": _CHANGED_OF_UNITS if units else _CHANGED}
            texts |= self._inserted(_NEW)
            if self.address.stored:
                texts |= {"leaving": _LEAVING, "gone": _GONE}
            if self.values:
                texts["updated"] = _UPDATED
        given = sql.SQL("select {}, count(*), 0, 0, 0 from source as s group by 1").format(
            self.address.label("s")
        )
        return self._counted(texts, units, source, given)

    def clear(self, *, units: bool) -> sql.Composed | None:
        """What runs before the statement: `replace` empties the slice in a statement of its own."""
        return self._counted({"gone": _CLEARED}, units) if self.target.mode == "replace" else None

    def _inserted(self, selected: str) -> dict[str, str]:
        """The insert of what is selected, and the partitions of its rows."""
        insert = f"insert into {{t}} as t ({{into}}) {selected}\n{_ON_CONFLICT}"
        return {"inserted": insert} if self.address.stored else {"new": insert, "inserted": _BY_SOURCE}

    def _counted(
        self,
        texts: Mapping[str, str],
        units: bool,
        source: sql.Composable | None = None,
        given: sql.Composable | None = None,
    ) -> sql.Composed:
        named = self.named(units=units)
        if source is not None:
            named["source"] = self.typed(source)
        parts = [(name, sql.SQL(text).format(**named)) for name, text in texts.items()]
        return with_counts(parts, given, journaled=self.journaled)
