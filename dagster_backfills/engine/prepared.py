"""A write made ready to run: its table read, its source's columns known, its statements composed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from dagster_backfills.engine.described import columns_of
from dagster_backfills.engine.failures import ErrorClass, classify
from dagster_backfills.engine.model import Compute, Frame, Query, Write
from dagster_backfills.engine.outcome import Counts
from dagster_backfills.engine.table.address import Address, keys_by_label
from dagster_backfills.engine.table.catalog import Table, read_table
from dagster_backfills.engine.table.empty_slice import copy_into, is_empty
from dagster_backfills.engine.table.merge import Merge
from dagster_backfills.engine.table.names import columns, ident
from dagster_backfills.engine.table.slice import Slice
from dagster_backfills.errors import UserError


class DuplicateKeyError(ValueError):
    """The source gives two rows for one row of the table, or one without its key."""


@dataclass
class PreparedWrite:
    """One write of a set. `stage` is the temporary table that its frames pass through."""

    write: Write
    table: Table
    address: Address
    stage: str
    merge: Merge | None = None
    journals: bool = False

    @property
    def asset(self) -> str:
        return self.write.target.asset

    @property
    def unit(self) -> str | None:
        """The unit's column, where the write has units: single rows of a partition that may fail alone."""
        named = self.write.units is not None or isinstance(self.write.source, Frame)
        return self.write.target.unit if named else None

    @classmethod
    def open(
        cls,
        conn: psycopg.Connection,
        write: Write,
        address: Address,
        number: int,
        keys: Sequence[str],
        *,
        journal: bool = True,
        table: Table | None = None,
    ) -> "PreparedWrite":
        """Read the table, if it is not given, and check the write against it. Raises UserError where they don't fit."""
        table = table or read_table(conn, *write.target.schema_and_table)
        stage = f"backfill_stage_{number}"
        prepared = cls(write, table, address, stage, journals=journal and bool(table.identity))
        prepared.attach(conn)
        if isinstance(write.source, Frame):
            prepared.refuse_strangers(conn, keys)
        return prepared

    def attach(self, conn: psycopg.Connection) -> None:
        """What a new connection needs before the first batch: the frame in its stage, the columns known."""
        source = self.write.source
        if not isinstance(source, Query) and not self.address.stored:
            raise UserError(
                f"Asset {self.asset}: its table has no column for the partition, so that a query must give its rows."
            )
        if isinstance(source, Frame):
            try:
                self._plan(self._staged(conn, source.data))
            except psycopg.DataError as error:
                raise UserError(
                    f"Asset {self.asset}: the frame has a partition or a unit that is not valid: "
                    f"{error.diag.message_primary} ({error.diag.context})."
                ) from error
        elif isinstance(source, Query) and self.merge is None:
            self._plan(columns_of(conn, source, self.asset, self.address))

    def detach(self, conn: psycopg.Connection) -> None:
        """Give back what `attach` took."""
        if not isinstance(self.write.source, Query):
            conn.execute(sql.SQL("drop table if exists pg_temp.{}").format(ident(self.stage)), {})

    def refuse_strangers(self, conn: psycopg.Connection, keys: Sequence[str]) -> None:
        """Raise UserError for a frame's rows that are in none of the partitions being written."""
        statement = sql.SQL(
            "select count(*), min({label}) from pg_temp.{stage} as s where ({inside}) is not true"
        ).format(label=self.address.label("s"), stage=ident(self.stage), inside=self.address.predicate("s"))
        count, example = conn.execute(statement, self.address.binds(keys)).fetchone() or (0, None)
        if count:
            where = "without a partition" if example is None else f"of other partitions, {example!r} for one"
            raise UserError(
                f"Asset {self.asset}: {count:,} rows of the frame are {where}; nothing was written.",
                hint="Return the rows of the partitions that the run is for.",
            )

    def units(self) -> Query | None:
        """The statement that lists partition and unit of what is due; for a frame, its own rows."""
        if self.write.units is not None or self.unit is None:
            return self.write.units
        statement = sql.SQL(
            "select {label} as partition, s.{unit}::text as unit from pg_temp.{stage} as s where {inside}"
        ).format(
            label=self.address.label("s"),
            unit=ident(self.unit),
            stage=ident(self.stage),
            inside=self.address.predicate("s"),
        )
        return Query(statement.as_string(None))

    def run(self, conn: psycopg.Connection, slice_: Slice) -> dict[str, Counts]:
        """Write the slice and return what changed, by partition."""
        source, keys, sliced = self.write.source, slice_.keys, slice_.units is not None
        if isinstance(source, Compute):
            computed = slice_.computed
            rows = source.function(conn, keys, slice_.units) if computed is None else computed
            if slice_.empty and len(keys) == 1:
                copied = self._copy_into(conn, rows, slice_)
                if copied is not None:
                    return {keys[0]: Counts(inserted=copied)}
            self._plan(self._staged(conn, rows))
        by_label = keys_by_label(conn, self.address, keys)
        binds = slice_.binds(self.address, by_label)
        if isinstance(source, Query):
            binds |= source.params
            selected: sql.Composable = sql.SQL(source.sql)
        else:
            selected = self._staged_slice(sliced)
        merge, looked = self._merge, isinstance(source, Query) and source.only_missing
        counts: dict[str, Counts] = {key: Counts() for key in keys}
        for statement in (
            merge.clear(units=sliced),
            merge.statement(selected, units=sliced, only_missing=looked),
        ):
            if statement is not None:
                # Planned for its binds each time. Not by `plan_cache_mode`, which would also plan every single
                # look-up of a foreign key anew, and triple the time of an insert.
                for label, *numbers, bad_key in conn.execute(statement, binds, prepare=False):
                    self._add(counts, by_label.get(label), label, numbers, bad_key)
        return counts

    def settle(self, conn: psycopg.Connection, keys: Sequence[str], *, whole: bool) -> None:
        """What is to be done once all writes of the batch are; `whole`: with it the partitions are through."""

    def kept_examples(self, conn: psycopg.Connection, room: int) -> list[Any]:
        """Examples of rows that the last slice left alone for what was done to them; only of an undo."""
        return []

    def name_of(self, conn: psycopg.Connection, unit: str) -> str:
        """What the ledger calls a unit."""
        return unit

    def is_empty(self, conn: psycopg.Connection, keys: Sequence[str], after: str | None = None) -> bool:
        """Whether what is computed for the partition, behind the unit `after`, is all new to the table."""
        if not isinstance(self.write.source, Compute) or len(keys) != 1:
            return False
        return is_empty(conn, self.table, self.address, keys[0], self.unit, after)

    def _copy_into(self, conn: psycopg.Connection, data: Any, slice_: Slice) -> int | None:
        """COPY rows that are thought to be new. None where the merge is to have its say, and its own errors."""
        from dagster_backfills.engine.table.frames import frame_columns  # loads pandas and Arrow

        names, arrays = frame_columns(data, self.table)
        self._plan(names)
        try:
            return copy_into(conn, self._merge, self.write.target.partition_by, arrays, slice_)
        except psycopg.Error as error:
            if classify(error) is not ErrorClass.DATA:
                raise
            return None

    def _add(
        self, counts: dict[str, Counts], key: str | None, label: str, numbers: list[int], bad_key: str | None
    ) -> None:
        if bad_key is not None:
            names = ", ".join(self._merge.key)
            raise DuplicateKeyError(
                f"Asset {self.asset} gives more than one row, or an empty key, for ({names}) = {bad_key}"
            )
        if key is None:
            written = ", ".join(map(repr, list(counts)[:3])) + (", …" if len(counts) > 3 else "")
            raise UserError(
                f"Asset {self.asset}: a row for partition {label!r} came while only {written} were being written.",
                hint="Let the asset's query bind :partition_keys, or its frame hold only its own rows.",
            )
        given, inserted, updated, deleted = numbers
        counts[key].add(Counts(inserted, updated, max(given - inserted - updated, 0), deleted))

    @property
    def _merge(self) -> Merge:
        if self.merge is None:
            raise RuntimeError(f"{self.asset} was run before it was prepared")
        return self.merge

    def _plan(self, names: Sequence[str]) -> None:
        if self.merge is None or self.merge.columns != tuple(names):
            target = self.write.target
            self.merge = Merge.plan(self.table, self.address, target, names, self.journals)

    def _staged(self, conn: psycopg.Connection, data: Any) -> list[str]:
        from dagster_backfills.engine.table.frames import stage_frame  # loads pandas and Arrow

        target = self.write.target
        by = target.partition_by
        typed = {by} if isinstance(by, str) else set((by or {}).values())
        if target.unit is not None:
            typed.add(target.unit)
        return stage_frame(conn, data, self.table, self.stage, typed)

    def _staged_slice(self, sliced: bool) -> sql.Composable:
        """The staged rows of the slice: a frame may hold several batches' worth, a computed one holds its own."""
        rows: sql.Composed = sql.SQL("select {} from pg_temp.{} as s").format(
            columns("s", self._merge.columns), ident(self.stage)
        )
        if isinstance(self.write.source, Compute):
            return rows
        rows = rows + sql.SQL(" where ") + self.address.predicate("s")
        if sliced and self.unit is not None:
            rows += sql.SQL(" and s.{}::text = any(%(unit_keys)s::text[])").format(ident(self.unit))
        return rows
