"""A write made ready to run: its table read, its source's columns known, its statements composed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from dagster_backfills.lib.engine.model import Compute, Counts, Frame, Query, Write
from dagster_backfills.lib.errors import UserError
from dagster_backfills.lib.postgres.address import Address
from dagster_backfills.lib.postgres.catalog import Table, read_table
from dagster_backfills.lib.postgres.merge import Merge
from dagster_backfills.lib.postgres.stage import stage_frame, staged


def raw(text: str) -> sql.Composable:
    """A statement as it stands; `{}` in it (an empty array, say) is no placeholder."""
    return sql.SQL(text)


@dataclass
class PreparedWrite:
    """One write of a set. `stage` is the temporary table that its frames pass through."""

    write: Write
    table: Table
    address: Address
    stage: str
    merge: Merge | None = None

    @property
    def asset(self) -> str:
        return self.write.target.asset

    @classmethod
    def open(cls, conn: psycopg.Connection, write: Write, address: Address, number: int) -> "PreparedWrite":
        """Read the table and check the write against it. Raises UserError where they do not fit."""
        prepared = cls(
            write, read_table(conn, *write.target.schema_and_table), address, f"backfill_stage_{number}"
        )
        prepared.attach(conn)
        return prepared

    def attach(self, conn: psycopg.Connection) -> None:
        """What a new connection needs before the first batch: the frame in its stage, the columns known."""
        source = self.write.source
        if isinstance(source, Frame):
            self._plan(stage_frame(conn, source.data, self.stage))
        elif isinstance(source, Query) and self.merge is None:
            self._plan(self._describe(conn, source))

    @property
    def merge_unit(self) -> str | None:
        return self.merge.unit if self.merge is not None else self.write.target.unit

    def units(self) -> Query | None:
        """The statement that lists partition and unit; for a frame, its own rows by their key."""
        if self.write.units is not None:
            return self.write.units
        if isinstance(self.write.source, Frame) and self.merge is not None and self.merge.unit is not None:
            unit = sql.SQL(
                "select {label} as partition, s.{unit}::text as unit from pg_temp.{stage} as s"
            ).format(
                label=self._staged_label(),
                unit=sql.Identifier(self.merge.unit),
                stage=sql.Identifier(self.stage),
            )
            return Query(unit.as_string(None))
        return None

    def run(
        self, conn: psycopg.Connection, keys: Sequence[str], units: Sequence[str] | None, run_id: str
    ) -> dict[str, Counts]:
        """Write the slice and return what changed, by partition."""
        source = self.write.source
        binds = {
            "unit_keys": None if units is None else list(units),
            "run_id": run_id,
            **self.address.binds(keys),
        }
        if isinstance(source, Compute):
            self._plan(stage_frame(conn, source.function(conn, keys, units), self.stage))
        if isinstance(source, Query):
            binds |= source.params
            rows: sql.Composable = raw(source.sql)
        else:
            rows = self._staged_slice(units is not None)
        merge = self._merge
        counts: dict[str, Counts] = {key: Counts() for key in keys}
        statements = [merge.clear(units=units is not None), merge.statement(rows, units=units is not None)]
        for statement in (s for s in statements if s is not None):
            for partition, given, inserted, updated, deleted in conn.execute(statement, binds):
                known = counts.get(partition)
                if known is None:
                    raise UserError(
                        f"Asset {self.asset}: a row for partition {partition!r} came while only "
                        f"{', '.join(map(repr, list(keys)[:3]))} were being written.",
                        hint="Let the asset's query bind :partition_keys, or its frame hold only its own rows.",
                    )
                known.add(Counts(inserted, updated, given - inserted - updated if given else 0, deleted))
        return counts

    @property
    def _merge(self) -> Merge:
        if self.merge is None:
            raise RuntimeError(f"{self.asset} was run before it was prepared")
        return self.merge

    def _plan(self, columns: Sequence[str]) -> None:
        target = self.write.target
        unit = target.unit
        merge = Merge.plan(self.table, self.address, target.mode, columns, target.key, unit)
        if unit is None and isinstance(self.write.source, Frame) and len(merge.key) == 1:
            merge = Merge.plan(self.table, self.address, target.mode, columns, target.key, merge.key[0])
        self.merge = merge

    def _describe(self, conn: psycopg.Connection, query: Query) -> list[str]:
        """The columns of a query, found by planning it and fetching nothing."""
        probe = sql.SQL("select * from (\n") + raw(query.sql) + sql.SQL("\n) as q limit 0")
        binds: dict[str, Any] = (
            {"unit_keys": None, "run_id": ""} | self.address.binds([]) | dict(query.params)
        )
        try:
            cursor = conn.execute(probe, binds)
        except (psycopg.ProgrammingError, KeyError) as error:
            raise UserError(
                f"The query of asset {self.asset} is not valid: {error}",
                hint="Binds are :partition_keys, :unit_keys, :window_start, :window_end, :run_id and the query's params.",
            ) from error
        return [column.name for column in cursor.description or ()]

    def _staged_slice(self, units: bool) -> sql.Composable:
        """The staged rows of the slice: a frame may hold several batches' worth."""
        if isinstance(self.write.source, Compute):
            return staged(self.stage)
        inside = self._typed_stage()
        condition = self.address.predicate("s")
        if units and self._merge.unit is not None:
            condition = sql.SQL("{} and s.{}::text = any(%(unit_keys)s::text[])").format(
                condition, sql.Identifier(self._merge.unit)
            )
        return sql.SQL("select * from {} as s where {}").format(inside, condition)

    def _typed_stage(self) -> sql.Composable:
        """The stage with its partition columns in the table's types, and the rest as the text that they are."""
        columns = sql.SQL(", ").join(self._typed_column(name) for name in self._merge.columns)
        return sql.SQL("(select {} from pg_temp.{})").format(columns, sql.Identifier(self.stage))

    def _typed_column(self, name: str) -> sql.Composable:
        by = self.write.target.partition_by
        partition = {by} if isinstance(by, str) else set((by or {}).values())
        if name not in partition:
            return sql.Identifier(name)
        return sql.SQL("{c}::{t} as {c}").format(
            c=sql.Identifier(name), t=sql.SQL(self.table.column(name).type)
        )

    def _staged_label(self) -> sql.Composable:
        return self.address.label("s")
