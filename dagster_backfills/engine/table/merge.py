"""The statements that put a source's rows into a table's slice, one a write mode. They are composed, not run, here.

Each returns one row a partition: its label, rows from the source, inserted, updated and deleted, and (in the last
column) a key that the source has twice or without a value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from dagster_backfills.engine.model import Mode
from dagster_backfills.engine.table.address import Address
from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.engine.table.counting import counted, with_counts
from dagster_backfills.engine.table.entries import BEFORE, names, standing, write_entries
from dagster_backfills.engine.table.merge_pieces import Pieces
from dagster_backfills.engine.table.names import columns, ident
from dagster_backfills.errors import UserError

_SEEN = "backfill seen"  # the row version that the statement's snapshot has
_CHANGING = ("updated", "inserted", "gone")


@dataclass(frozen=True)
class Merge(Pieces):
    """One table's merge: what is known of it before the slice is."""

    @classmethod
    def plan(
        cls,
        table: Table,
        address: Address,
        mode: Mode,
        columns: Sequence[str],
        declared_key: Sequence[str] | None,
        unit: str | None,
        touched: str = "updated_at",
        journaled: bool = False,
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
        key = table.key_among(columns, declared_key)
        if mode != "replace" and not key:
            raise UserError(
                f"Table {name} has no unique constraint on columns that the asset gives "
                f"({', '.join(columns)}), so that its rows can't be told apart.",
                hint="Add a primary key in a migration, return the key's columns, or write with mode 'replace'.",
            )
        if unit is not None:
            table.column(unit)
        return cls(table, address, mode, tuple(columns), key, unit, touched, journaled)

    def statement(self, source: sql.Composable, *, units: bool, only_missing: bool = False) -> sql.Composed:
        """The whole statement for a source SELECT.

        units: only the units in the bind `unit_keys`. only_missing: the source gives hardly a row that is there.
        """
        if self.mode == "upsert":
            return self._upsert(source, units)
        if self.mode == "insert_missing":
            return self._insert_missing(source, only_missing)
        return self._replace(source)

    def clear(self, *, units: bool) -> sql.Composed | None:
        """What runs before the statement: `replace` empties the slice in a statement of its own."""
        if self.mode != "replace":
            return None
        gone = sql.SQL("delete from {} as t where {} returning {} as label{}").format(
            self.relation, self.slice("t", units), self.address.label("t"), self.entry(before=standing("t"))
        )
        return self._with([("gone", gone)], [counted("gone", deleted="count(*)")])

    # ---- the three modes --------------------------------------------------------------------------------------

    def _upsert(self, source: sql.Composable, units: bool) -> sql.Composed:
        """Write only rows that are new or differ, and only over the version that this statement has seen.

        A row that another transaction has written since then is newer than what was computed here, and stays:
        its version is at another place by then, which is what an update that waited for it looks at again.
        """
        parts = [
            ("source", self.typed(source)),
            ("bad_key", self._bad_key()),
            ("changed", self._changed(units)),
            *self._labelled(self._inserted()),
        ]
        numbers: list[sql.Composable] = [self.given(), counted("inserted", inserted="count(*)")]
        if self.address.stored:
            parts += [("leaving", self._leaving(units)), ("gone", self._gone())]
            numbers.append(counted("gone", deleted="count(*)"))
        if self.values:
            parts.insert(3, ("updated", self._updated()))
            numbers.append(counted("updated", updated="count(*)"))
        return self._with(parts, numbers, bad_key=True)

    def _insert_missing(self, source: sql.Composable, only_missing: bool) -> sql.Composed:
        # The sort stands between looking and writing: planned while the table is empty, the look-up is a scan of it for
        # each row, which must not grow with what this very statement writes. In key order two batches can't deadlock.
        new = sql.SQL("" if only_missing else "where not exists (select from {t} as o where {same})").format(
            t=self.relation, same=self.same_key("o", "s")
        )
        inserted = sql.SQL(
            "{into} select {values} from source as s {new}\n"
            "order by {order} on conflict ({key}) do nothing returning {inserted}"
        ).format(
            new=new,
            order=sql.SQL(", ").join(sql.SQL("s.{}").format(ident(n)) for n in self.key),
            into=self.into,
            values=self.row("s"),
            key=sql.SQL(", ").join(map(ident, self.key)),
            inserted=self._of_inserted(),
        )
        parts = [("source", self.typed(source)), *self._labelled(inserted)]
        return self._with(parts, [self.given(), counted("inserted", inserted="count(*)")])

    def _replace(self, source: sql.Composable) -> sql.Composed:
        inserted = sql.SQL("{} select {} from ({}) as s returning {} as label{}").format(
            self.into, self.row("s"), self.typed(source), self.address.label("t"), self.entry(after="t")
        )
        return self._with(
            [("inserted", inserted)], [counted("inserted", given="count(*)", inserted="count(*)")]
        )

    # ---- parts of the upsert ----------------------------------------------------------------------------------

    def _changed(self, units: bool) -> sql.Composed:
        # A slice of units is small beside its partition: each row is looked up by its key. LIMIT keeps the planner from
        # reading the whole partition instead, once a slice. In the key's order, so that two writers of the same rows
        # meet in the same order.
        there = sql.SQL(
            "lateral (select o.*, o.ctid as {seen}{before} from {t} as o where {same} limit 1) as o on true"
            if units
            else "(select o.*, o.ctid as {seen}{before} from {t} as o) as o on {same}"
        ).format(
            seen=ident(_SEEN),
            before=sql.SQL(", {} as {}").format(standing("o"), ident(BEFORE))
            if self.journaled
            else sql.SQL(""),
            t=self.relation,
            same=self.same_key("o", "s"),
        )
        return sql.SQL(
            "select s.*, o.{seen}{before} from source as s left join {there}\n"
            "where o.{seen} is null or {differs}\norder by {order}"
        ).format(
            seen=ident(_SEEN),
            before=sql.SQL(", o.{}").format(ident(BEFORE)) if self.journaled else sql.SQL(""),
            there=there,
            differs=self.differs("o", "s"),
            order=columns("s", self.key),
        )

    def _updated(self) -> sql.Composed:
        assignments = [sql.SQL("{} = {}").format(ident(n), ident("c", n)) for n in self.set_columns]
        if self.touches:
            assignments.append(sql.SQL("{} = now()").format(ident(self.touched)))
        return sql.SQL(
            "update {t} as t set {set} from changed as c where t.ctid = c.{seen} and {same}\n"
            "returning {label} as label{entry}"
        ).format(
            t=self.relation,
            entry=self.entry(before=ident("c", BEFORE), after="t"),
            set=sql.SQL(", ").join(assignments),
            seen=ident(_SEEN),
            same=self.same_key("t", "c"),
            label=self.address.label("t" if self.address.stored else "c"),
        )

    def _inserted(self) -> sql.Composed:
        return sql.SQL(
            "{into} select {values} from changed as c where c.{seen} is null\n"
            "on conflict ({key}) do nothing returning {inserted}"
        ).format(
            into=self.into,
            values=self.row("c"),
            seen=ident(_SEEN),
            key=sql.SQL(", ").join(map(ident, self.key)),
            inserted=self._of_inserted(),
        )

    def _of_inserted(self) -> sql.Composed:
        """What an insert returns of a row: its partition, or the key by which the source knows that."""
        of_it = (
            sql.SQL("{} as label").format(self.address.label("t"))
            if self.address.stored
            else columns("t", self.key)
        )
        return of_it + self.entry(after="t")

    def _labelled(self, inserted: sql.Composed) -> list[tuple[str, sql.Composed]]:
        """An insert, and the partitions of its rows."""
        if self.address.stored:
            return [("inserted", inserted)]
        by_source = sql.SQL(
            "select {label} as label{entry} from new as t inner join source as s on {same}"
        ).format(
            label=self.address.label("s"),
            entry=sql.SQL(", ") + names("t") if self.journaled else sql.SQL(""),
            same=self.same_key("t", "s"),
        )
        return [("new", inserted), ("inserted", by_source)]

    def _leaving(self, units: bool) -> sql.Composed:
        return sql.SQL(
            "select {key}, o.ctid as {seen} from {t} as o\n"
            "where {inside} and not exists (select from source as s where {same})"
        ).format(
            key=columns("o", self.key),
            seen=ident(_SEEN),
            t=self.relation,
            inside=self.slice("o", units),
            same=self.same_key("o", "s"),
        )

    def _gone(self) -> sql.Composed:
        return sql.SQL(
            "delete from {t} as t using leaving as g where t.ctid = g.{seen} and {same}\n"
            "returning {label} as label{entry}"
        ).format(
            entry=self.entry(before=standing("t")),
            t=self.relation,
            seen=ident(_SEEN),
            same=self.same_key("t", "g"),
            label=self.address.label("t"),
        )

    def _bad_key(self) -> sql.Composed:
        """A key that stands for two rows, or for none: written as it is, the one would come and go at random."""
        condition: sql.Composable = sql.SQL("count(*) > 1")
        if any(not self.table.column(name).not_null for name in self.key):
            condition = sql.SQL("count(*) > 1 or bool_or(num_nulls({}) > 0)").format(columns("s", self.key))
        return sql.SQL(
            "select row({key})::text as key from source as s group by {key} having {condition} limit 1"
        ).format(key=columns("s", self.key), condition=condition)

    def _with(
        self,
        parts: Sequence[tuple[str, sql.Composed]],
        numbers: Sequence[sql.Composable],
        *,
        bad_key: bool = False,
    ) -> sql.Composed:
        """The statement of these parts, and the journal's entries of what they change."""
        changing = [name for name, _ in parts if name in _CHANGING]
        entries = [("journaled", write_entries(changing))] if self.journaled else []
        return with_counts([*parts, *entries], numbers, bad_key=bad_key)
