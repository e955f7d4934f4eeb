"""One declared backfill at work: its statements, what it writes, which partitions, and what must hold of it.

Not here: the Dagster definitions that are made of it (`assets`, `refresh`, `planning`).
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg

from dagster_backfills.components.partitions import definition_of
from dagster_backfills.dagster.checks import CheckRule, CheckRules, engine_rules
from dagster_backfills.dagster.layout import address_of
from dagster_backfills.dagster.own_resources import resource_keys
from dagster_backfills.engine.calendar import changed_keys, open_key
from dagster_backfills.engine.compute import compute_of
from dagster_backfills.engine.declared.declaration import Declaration, TableDeclaration
from dagster_backfills.engine.declared.validation import named_function
from dagster_backfills.engine.explain import Part
from dagster_backfills.engine.model import WHOLE, Query, Write, WriteSet
from dagster_backfills.engine.selection import GENERIC, Selection
from dagster_backfills.engine.standing import Standing, standings
from dagster_backfills.engine.table.catalog import read_table
from dagster_backfills.engine.watched import WatchedTable
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.statements import Statement
from dagster_backfills.postgres.table_names import split_table


@dataclass(frozen=True)
class Backfill:
    """One declaration with the statements of its folder."""

    declared: Declaration
    name: str
    group: str
    statements: Mapping[str, Statement]
    folder: Path

    # ---- where it lies ----------------------------------------------------------------------------------------

    @cached_property
    def partitions_def(self) -> dg.PartitionsDefinition | None:
        return definition_of(self.declared.partitions, self.name) if self.declared.partitions else None

    @property
    def assets(self) -> list[str]:
        """The assets' keys as paths, in the order of the tables."""
        return [table.asset for table in self.declared.tables]

    @property
    def sources(self) -> list[str]:
        """The tables that are read and not written here."""
        return list(dict.fromkeys([*self.declared.sources, *self.declared.stale_when]))

    @property
    def job(self) -> str:
        """The name of the job that finds scattered work by itself."""
        return f"refresh_{self.name}"

    @property
    def database(self) -> str:
        """The key of the resource that is the database."""
        own = self.declared.resources
        return own.database if own else resource_keys(self.declared.database)[0]

    @property
    def io_manager(self) -> str:
        """The key of the I/O manager."""
        own = self.declared.resources
        return own.io_manager if own else resource_keys(self.declared.database)[1]

    def connect(self, context: Any) -> AbstractContextManager[psycopg.Connection[Any]]:
        """A connection from the resource of a run or a sensor."""
        return getattr(context.resources, self.database).connect()

    # ---- what is written --------------------------------------------------------------------------------------

    @property
    def queries(self) -> dict[str, str]:
        """By table the SQL that gives its rows; none of a table that Python computes."""
        tables = [table for table in self.declared.tables if table.compute is None]
        return {table.qualified: self.statements[table.statement].sql for table in tables}

    def write_set(
        self, tables: Sequence[TableDeclaration], run: dg.DagsterRun, keys: Sequence[str] | None = None
    ) -> WriteSet:
        """What the engine is to do for these tables, in the name of this run."""
        params = {"backfill_id": run.tags.get("dagster/backfill") or run.root_run_id or run.run_id}
        return WriteSet(
            [self.write(table, params) for table in tables],
            keys=keys,
            names=self.names,
            partitions_def=self.partitions_def,
            batch_seconds=self.declared.batch_seconds,
        )

    def write(self, table: TableDeclaration, params: Mapping[str, Any]) -> Write:
        source, units = self.statements[table.statement].sql, table.units_statement
        return Write(
            table.target(partitioned=self.partitions_def is not None),
            compute_of(named_function(table.compute, table.asset), source, params)
            if table.compute
            else Query(source, params, only_missing=table.only_missing),
            units=Query(self.statements[units].sql, params) if units else None,
        )

    def parts(self, conn: psycopg.Connection[Any], keys: Sequence[str], first: int = 0) -> list[Part]:
        """The writes from the first of these tables on, with their tables and addresses, outside of any run."""
        writes = [self.write(table, {"backfill_id": ""}) for table in self.declared.tables[first:]]
        tables = [read_table(conn, *write.target.schema_and_table) for write in writes]
        return [
            Part(write, table, address_of(write.target, table, self.partitions_def, keys))
            for write, table in zip(writes, tables, strict=True)
        ]

    # ---- which partitions -------------------------------------------------------------------------------------

    def selection(self, instance: dg.DagsterInstance | None = None) -> Selection:
        """How partitions are found. What is missing is known to Dagster, where no statement of the backfill says it."""
        due, lacking = self.declared.due, self.declared.missing or self.declared.due
        return Selection(
            self.assets,
            self._every,
            lambda conn: self._given(conn, due) if due else [],
            lambda conn: self._given(conn, lacking) if lacking else self._unmaterialized(conn, instance),
        )

    def standings(
        self, conn: psycopg.Connection[Any], instance: dg.DagsterInstance | None = None, *, more: bool = True
    ) -> list[Standing]:
        """Where every partition stands, the oldest first. Without `more`, the declared `status` is not asked."""
        status = self.statements[self.declared.status].sql if self.declared.status and more else None
        return standings(conn, self.selection(instance), self.names(conn), status, self._binds)

    def names(self, conn: psycopg.Connection[Any]) -> dict[str, str | None]:
        """Of partitions that are rows, by key, the oldest first: what stands behind the key in its statement."""
        cut = self.declared.partitions
        rows = self.statements[cut.keys](conn, **self._binds) if cut and cut.keys else []
        return {str(key): str(name[0]) if any(name[:1]) else None for key, *name in rows if key is not None}

    def add_partitions(self, instance: dg.DagsterInstance, keys: Sequence[str]) -> None:
        """Make keys known to Dagster, where the partitions are rows."""
        if isinstance(self.partitions_def, dg.DynamicPartitionsDefinition):
            instance.add_dynamic_partitions(str(self.partitions_def.name), list(keys))

    def mark(self, conn: psycopg.Connection[Any], assets: Sequence[str], keys: Sequence[str]) -> None:
        """Make partitions of these tables stale."""
        if assets:
            GENERIC.mark(conn, assets=list(assets), partition_keys=list(keys))

    def forget_gone(self, conn: psycopg.Connection[Any]) -> None:
        """Take away marks, open failures and undoings of what is no partition, nor will be one, and commit."""
        # Before the keys: a new one that is marked is among them then.
        work = self.selection().open_work(conn)
        if work:
            every = self._every(conn)
            gone = work.keys() - set(every)
            if isinstance(self.partitions_def, dg.TimeWindowPartitionsDefinition):
                gone = {key for key in gone if every and key < every[0]}
            GENERIC.forget(conn, assets=self.assets, partition_keys=list(gone))
        conn.commit()

    def watched(self) -> list[WatchedTable]:
        """The source tables whose changes make partitions stale, in the declaration's order."""
        return [
            WatchedTable(self.name, *split_table(source), self._stale_keys(by), self.assets, by)
            for source, by in self.declared.stale_when.items()
        ]

    def look(self, conn: psycopg.Connection[Any]) -> None:
        """Mark what has changed in the sources, where no trigger does, in the transaction that `conn` is in."""
        if self.declared.stale_by == "look":
            for table in self.watched():
                table.look(conn)

    def _stale_keys(self, by: str) -> str:
        """SQL for the keys of the partitions that `changed_rows` are of."""
        cut = self.declared.partitions
        if by in self.statements:
            return self.statements[by].sql.replace("%%", "%")
        return changed_keys(by, cut.calendar, cut.timezone) if cut else "select '' from changed_rows limit 1"

    def _every(self, conn: psycopg.Connection[Any]) -> Sequence[str]:
        if isinstance(self.partitions_def, dg.DynamicPartitionsDefinition):
            return list(self.names(conn))
        return list(self.partitions_def.get_partition_keys()) if self.partitions_def else [WHOLE]

    def _given(self, conn: psycopg.Connection[Any], name: str) -> Sequence[str]:
        """The keys that a statement gives."""
        return [str(row[0]) for row in self.statements[name](conn, **self._binds) if row[0] is not None]

    def _unmaterialized(
        self, conn: psycopg.Connection[Any], instance: dg.DagsterInstance | None
    ) -> Sequence[str]:
        if instance is None:
            return []
        asset = dg.AssetKey(self.assets[0].split("/"))
        if self.partitions_def is None:
            return [] if instance.get_latest_materialization_event(asset) else [WHOLE]
        there = instance.get_materialized_partitions(asset)
        return [key for key in self._every(conn) if key not in there]

    @property
    def _binds(self) -> dict[str, Any]:
        """What statements about the backfill as a whole may bind."""
        return {"assets": self.assets, "seconds": self.declared.fresh_within}

    # ---- what must hold of it ---------------------------------------------------------------------------------

    @cached_property
    def rules(self) -> CheckRules:
        """The declared checks, and the two that hold for every backfill."""
        asset_of = {split_table(table.table): table.asset for table in self.declared.tables}
        declared = {
            name: CheckRule(
                asset_of[split_table(check.table)] if check.table else self.assets[0],
                check.query,
                check.description or f"{name.replace('_', ' ').capitalize()}.",
                warns=check.warn,
            )
            for name, check in self.declared.check_list.items()
        }
        common, generic = engine_rules(self.assets[0], self.assets[-1], self.declared.fresh_within)
        cut = self.declared.partitions
        if cut and cut.calendar:  # what is not over is no partition yet, and can't be late
            late, now = generic["every late one"], open_key(cut.calendar, cut.timezone)
            generic["every late one"] = f"select * from ({late}) as l where l.partition < {now}"  # noqa: S608
        for name in common.keys() & declared.keys():
            raise UserError(
                f"{self.folder / 'defs.yaml'}: every backfill has a check {name!r} already.",
                hint="Give yours another name.",
            )
        statements = {name: statement.sql for name, statement in self.statements.items()} | generic
        return CheckRules(
            f"{self.name}_checks",
            common | declared,
            statements,
            self._binds,
            names=self.names,
            database=self.database,
        )
