"""The statements that put a source's rows into a table's slice, one a write mode. They are composed, not run, here.

Each returns one row a partition: its label, rows from the source, inserted, updated and deleted, and (in the last
column) a key that the source has twice or without a value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from dagster_backfills.engine.model import Target
from dagster_backfills.engine.table.address import Address
from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.engine.table.counting import with_counts
from dagster_backfills.engine.table.entries import standing
from dagster_backfills.engine.table.merge_pieces import Pieces
from dagster_backfills.engine.table.names import columns
from dagster_backfills.errors import UserError


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
        if target.unit is not None:
            table.column(target.unit)
        return cls(table, address, target, tuple(columns), key, journaled)

    def statement(self, source: sql.Composable, *, units: bool, only_missing: bool = False) -> sql.Composed:
        """The whole statement for a source SELECT.

        units: only the units in the bind `unit_keys`. only_missing: the source gives hardly a row that is there.
        """
        if self.target.mode == "upsert":
            return self._upsert(source, units)
        if self.target.mode == "insert_missing":
            return self._insert_missing(source, only_missing)
        return self._replace(source)

    def clear(self, *, units: bool) -> sql.Composed | None:
        """What runs before the statement: `replace` empties the slice in a statement of its own."""
        if self.target.mode != "replace":
            return None
        gone = sql.SQL("delete from {} as t where {} returning {} as label{}").format(
            self.table.relation,
            self.slice("t", units),
            self.address.label("t"),
            self.entry(before=standing("t")),
        )
        return with_counts([("gone", gone)], journaled=self.journaled)

    # ---- the three modes --------------------------------------------------------------------------------------

    def _upsert(self, source: sql.Composable, units: bool) -> sql.Composed:
        """Write only rows that are new or differ, and only over the version that this statement has seen.

        A row that another transaction has written since then is newer than what was computed here, and stays:
        its version is at another place by then, which is what an update that waited for it looks at again.
        """
        new = self.compose("select {row} from changed as c where c.{seen} is null", row=self.row("c"))
        parts = [
            ("source", self.typed(source)),
            ("bad_key", self.bad_key()),
            ("changed", self.changed(units)),
            *self.inserted(new),
        ]
        if self.address.stored:
            parts += [("leaving", self.leaving(units)), ("gone", self.gone())]
        if self.values:
            parts.append(("updated", self.updated()))
        return with_counts(parts, self.given(), journaled=self.journaled, bad_key=True)

    def _insert_missing(self, source: sql.Composable, only_missing: bool) -> sql.Composed:
        # The sort stands between looking and writing: planned while the table is empty, the look-up is a scan of it for
        # each row, which must not grow with what this very statement writes. In key order two batches can't deadlock.
        there = self.compose("select from {t} as o where {same}", same=self.same_key("o", "s"))
        new = sql.SQL("select {} from source as s {}\norder by {}").format(
            self.row("s"),
            sql.SQL("" if only_missing else "where not exists ({})").format(there),
            columns("s", self.key),
        )
        parts = [("source", self.typed(source)), *self.inserted(new)]
        return with_counts(parts, self.given(), journaled=self.journaled)

    def _replace(self, source: sql.Composable) -> sql.Composed:
        inserted = sql.SQL("{} select {} from ({}) as s returning {} as label{}").format(
            self.into, self.row("s"), self.typed(source), self.address.label("t"), self.entry(after="t")
        )
        return with_counts([("inserted", inserted)], journaled=self.journaled)
