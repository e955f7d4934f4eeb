"""A write that is ready to run: its table and its source's columns are known and its statements are composed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from dagster_backfills.engine.described import columns_of
from dagster_backfills.engine.failures import ErrorClass, NullUnitError, classify
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
    """The source returned two rows with the same key, or a row with a null in its key."""


@dataclass
class PreparedWrite:
    """One write of a set. stage: the temporary table that its frames are loaded into. journals: write the journal."""

    write: Write
    table: Table
    stage: str
    merge: Merge | None = None
    journals: bool = False

    @property
    def asset(self) -> str:
        return self.write.target.asset

    @property
    def address(self) -> Address:
        assert self.write.address is not None
        return self.write.address

    @property
    def unit(self) -> str | None:
        """The unit's column, if the partition can be written unit by unit."""
        can_list_units = self.write.units is not None or isinstance(self.write.source, Frame)
        return self.write.target.unit if can_list_units else None

    @classmethod
    def open(
        cls,
        conn: psycopg.Connection,
        write: Write,
        number: int,
        keys: Sequence[str],
        *,
        journal: bool = True,
        table: Table | None = None,
    ) -> "PreparedWrite":
        """Reads the table from the catalog (unless given) and prepares the write.

        write: has its address. number: its position in its set. keys: the partitions of the run. Raises UserError if
        the source does not fit the table.
        """
        table = table or read_table(conn, *write.target.schema_and_table)
        prepared = cls(write, table, f"backfill_stage_{number}", journals=journal and bool(table.identity))
        prepared.attach(conn)
        if isinstance(write.source, Frame):
            prepared.check_partitions(conn, keys)
        return prepared

    def attach(self, conn: psycopg.Connection) -> None:
        """Prepares a new connection for the first batch: stages the frame and finds the source's columns."""
        source = self.write.source
        if not isinstance(source, Query) and not self.address.stored:
            raise UserError(
                f"Asset {self.asset}: its table does not store the partition, so its source must be a query."
            )
        if isinstance(source, Frame):
            try:
                self._plan(self._staged(conn, source.data))
            except psycopg.DataError as error:
                raise UserError(
                    f"Asset {self.asset}: the frame has an invalid partition or unit: "
                    f"{error.diag.message_primary} ({error.diag.context})."
                ) from error
        elif isinstance(source, Query) and self.merge is None:
            self._plan(columns_of(conn, source, self.asset, self.address))

    def detach(self, conn: psycopg.Connection) -> None:
        """Drops what `attach` created."""
        if not isinstance(self.write.source, Query):
            conn.execute(sql.SQL("drop table if exists pg_temp.{}").format(ident(self.stage)), {})

    def check_partitions(self, conn: psycopg.Connection, keys: Sequence[str]) -> None:
        """Raises UserError if the frame has rows outside the run's partitions."""
        statement = sql.SQL(
            "select count(*), min({label}) from pg_temp.{stage} as s where ({inside}) is not true"
        ).format(label=self.address.label("s"), stage=ident(self.stage), inside=self.address.predicate("s"))
        count, example = conn.execute(statement, self.address.binds(keys)).fetchone() or (0, None)
        if count:
            where = "in no partition" if example is None else f"in other partitions, such as {example!r}"
            raise UserError(
                f"Asset {self.asset}: {count:,} rows of the frame are {where}; nothing was written.",
                hint="Return only rows of the run's partitions.",
            )

    def units(self) -> Query | None:
        """The query that lists partition and unit of all due rows. For a frame it reads the staged rows."""
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
        """Writes the slice in the current transaction and returns counts by partition."""
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
        merge, only_missing = self._merge, isinstance(source, Query) and source.only_missing
        counts: dict[str, Counts] = {key: Counts() for key in keys}
        for statement in (
            merge.clear(units=sliced),
            merge.statement(selected, units=sliced, only_missing=only_missing),
        ):
            if statement is not None:
                for label, *numbers, bad_key, null_unit in self._execute(conn, statement, binds):
                    if null_unit and self.unit is not None:
                        raise NullUnitError(self.asset)
                    self._add(counts, by_label.get(label), label, numbers, bad_key)
        return counts

    def _execute(self, conn: psycopg.Connection, statement: sql.Composed, binds: Any) -> psycopg.Cursor:
        try:
            # Unprepared, so that it is planned for these parameters. `plan_cache_mode` would also re-plan every
            # foreign key check and triple the time of an insert.
            return conn.execute(statement, binds, prepare=False)
        except psycopg.errors.NotNullViolation as error:
            if (error.diag.table_name, error.diag.column_name) != (self.table.name, self.unit):
                raise
            raise NullUnitError(self.asset) from error

    def fit(self, earlier: str, later: str) -> bool:
        """Whether a batch can hold both partitions. A source that selects by time also returns what lies in between."""
        source = self.write.source
        return isinstance(source, Frame) or not source.window or self.address.adjoin(earlier, later)

    def settle(self, conn: psycopg.Connection, keys: Sequence[str], *, whole: bool) -> None:
        """Hook that runs after all writes of a batch. whole: the batch completes the partitions."""

    def kept_examples(self, conn: psycopg.Connection, limit: int) -> list[Any]:
        """Hook of an undo: examples of rows in the last slice that it keeps because they have changed since."""
        return []

    def name_of(self, conn: psycopg.Connection, unit: str) -> str:
        """The unit's name in the failure ledger."""
        return unit

    def is_empty(self, conn: psycopg.Connection, keys: Sequence[str], after: str | None = None) -> bool:
        """Whether the table has no rows of the partition (after the unit `after`), so that COPY can load it."""
        if not isinstance(self.write.source, Compute) or len(keys) != 1:
            return False
        return is_empty(conn, self.table, self.address, keys[0], self.unit, after)

    def _copy_into(self, conn: psycopg.Connection, data: Any, slice_: Slice) -> int | None:
        """Loads new rows with COPY. Returns None if a merge is needed, for example to report which row is bad."""
        from dagster_backfills.engine.table.frames import frame_columns  # loads pandas and Arrow

        names, arrays = frame_columns(data, self.table)
        self._plan(names)
        try:
            return copy_into(conn, self._merge, arrays, slice_)
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
                f"Asset {self.asset} returns duplicate rows, or a null in the key, for ({names}) = {bad_key}"
            )
        if key is None:
            written = ", ".join(map(repr, list(counts)[:3])) + (", …" if len(counts) > 3 else "")
            of = "in no partition" if label is None else f"of partition {label!r}"
            raise UserError(
                f"Asset {self.asset} returned a row {of}, but the batch writes only {written}.",
                hint="Filter the asset's query by :partition_keys, or return only the batch's rows in its frame.",
            )
        source_rows, inserted, updated, deleted = numbers
        counts[key].add(Counts(inserted, updated, max(source_rows - inserted - updated, 0), deleted))

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
        """Selects the slice's rows from the stage: a `Frame` may cover several batches, a `Compute` only its own."""
        rows: sql.Composed = sql.SQL("select {} from pg_temp.{} as s").format(
            columns("s", self._merge.columns), ident(self.stage)
        )
        if isinstance(self.write.source, Compute):
            return rows
        rows = rows + sql.SQL(" where ") + self.address.predicate("s")
        if sliced and self.unit is not None:
            rows += sql.SQL(" and s.{}::text = any(%(unit_keys)s::text[])").format(ident(self.unit))
        return rows
