"""One declared backfill with its statements: its writes, its partitions and its check rules.

Not here: the Dagster definitions built from it (`assets`, `refresh`, `planning`).
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg

from dagster_backfills.components.partitions import definition_of
from dagster_backfills.dagster.checks import CheckRule, CheckRules, engine_rules
from dagster_backfills.dagster.layout import address_of, windows_of
from dagster_backfills.dagster.own_resources import resource_keys
from dagster_backfills.engine.calendar import changed_keys, open_key
from dagster_backfills.engine.compute import compute_of
from dagster_backfills.engine.declared.declaration import Declaration, TableDeclaration
from dagster_backfills.engine.declared.validation import named_function
from dagster_backfills.engine.explain import Part
from dagster_backfills.engine.model import WHOLE, Query, Write, WriteSet
from dagster_backfills.engine.partition_status import PartitionStatus, partition_statuses
from dagster_backfills.engine.selection import GENERIC, Selection, is_key
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

    # ---- names and resources ----------------------------------------------------------------------------------

    @cached_property
    def partitions_def(self) -> dg.PartitionsDefinition | None:
        return definition_of(self.declared.partitions, self.name) if self.declared.partitions else None

    @property
    def assets(self) -> list[str]:
        """The asset keys as paths, in the order of the tables."""
        return [table.asset for table in self.declared.tables]

    @property
    def sources(self) -> list[str]:
        """The tables that the backfill reads but does not write."""
        return list(dict.fromkeys([*self.declared.sources, *self.declared.stale_when]))

    @property
    def job(self) -> str:
        """The name of the refresh job, which selects its partitions itself."""
        return f"refresh_{self.name}"

    @property
    def database(self) -> str:
        """The key of the database resource."""
        own = self.declared.resources
        return own.database if own else resource_keys(self.declared.database)[0]

    @property
    def io_manager(self) -> str:
        """The key of the I/O manager."""
        own = self.declared.resources
        return own.io_manager if own else resource_keys(self.declared.database)[1]

    def connect(self, context: Any) -> AbstractContextManager[psycopg.Connection[Any]]:
        """A connection from the database resource of a run or a sensor."""
        return getattr(context.resources, self.database).connect()

    # ---- writes -----------------------------------------------------------------------------------------------

    @property
    def queries(self) -> dict[str, str]:
        """The SQL that computes each table's rows, except for tables that Python computes."""
        tables = [table for table in self.declared.tables if table.compute is None]
        return {table.qualified: self.statements[table.statement].sql for table in tables}

    def write_set(
        self, tables: Sequence[TableDeclaration], run: dg.DagsterRun, keys: Sequence[str] | None = None
    ) -> WriteSet:
        """The engine's input for writing these tables in this run."""
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
        windows = partial(windows_of, self.partitions_def)
        return Write(
            table.target(partitioned=self.partitions_def is not None),
            compute_of(named_function(table.compute, table.asset), source, params, windows)
            if table.compute
            else Query(source, params, only_missing=table.only_missing),
            units=Query(self.statements[units].sql, params) if units else None,
        )

    def parts(self, conn: psycopg.Connection[Any], keys: Sequence[str], first: int = 0) -> list[Part]:
        """The writes of the tables from index `first` on, with tables and addresses, for use outside of a run."""
        parts = []
        for write in [self.write(table, {"backfill_id": ""}) for table in self.declared.tables[first:]]:
            table = read_table(conn, *write.target.schema_and_table)
            address = address_of(write.target, table, self.partitions_def, keys)
            parts.append(Part(replace(write, address=address), table))
        return parts

    # ---- partitions -------------------------------------------------------------------------------------------

    def selection(self) -> Selection:
        """The selection of partitions."""
        due, missing = self.declared.due, self.declared.missing or self.declared.due
        return Selection(
            self.assets,
            self._all_keys,
            lambda conn: self._keys_from(conn, due) if due else [],
            (lambda conn: self._keys_from(conn, missing)) if missing else None,
        )

    def partition_statuses(
        self, conn: psycopg.Connection[Any], *, more: bool = True
    ) -> list[PartitionStatus]:
        """The status of every partition, oldest first. `more` adds the columns of the declared `status` statement."""
        status = self.statements[self.declared.status].sql if self.declared.status and more else None
        return partition_statuses(conn, self.selection(), self.names(conn), status, self._binds)

    def names(self, conn: psycopg.Connection[Any]) -> dict[str, str | None]:
        """The names of dynamic partitions by key, oldest first: the second column of their statement, if any."""
        cut = self.declared.partitions
        rows = self.statements[cut.keys](conn, **self._binds) if cut and cut.keys else []
        return {str(key): str(name[0]) if any(name[:1]) else None for key, *name in rows if is_key(key)}

    def add_partitions(self, instance: dg.DagsterInstance, keys: Sequence[str]) -> None:
        """Add keys to Dagster's dynamic partitions; does nothing for other partitions."""
        if isinstance(self.partitions_def, dg.DynamicPartitionsDefinition):
            instance.add_dynamic_partitions(str(self.partitions_def.name), list(keys))

    def mark(self, conn: psycopg.Connection[Any], assets: Sequence[str], keys: Sequence[str]) -> None:
        """Mark partitions of these assets as stale."""
        if assets:
            GENERIC.mark(conn, assets=list(assets), partition_keys=list(keys))

    def forget_gone(self, conn: psycopg.Connection[Any]) -> None:
        """Delete stale marks and undo records, and resolve failures, of partitions that no longer exist, and commit."""
        # Read the open work before the keys: a partition that is added and marked in between must not count as gone.
        work = self.selection().open_work(conn)
        if work:
            keys = self._all_keys(conn)
            gone = work.keys() - set(keys)
            if isinstance(self.partitions_def, dg.TimeWindowPartitionsDefinition):  # keep future windows
                gone = {key for key in gone if keys and key < keys[0]}
            GENERIC.forget(conn, assets=self.assets, partition_keys=list(gone))
        conn.commit()

    def left_behind(self, conn: psycopg.Connection[Any]) -> list[str]:
        """The keys of former partitions that still have rows. No run updates or deletes these rows."""
        gone = sorted(self.selection().written(conn) - set(self._all_keys(conn)))
        if not gone or isinstance(self.partitions_def, dg.TimeWindowPartitionsDefinition):
            return []
        parts = [part for part in self.parts(conn, gone) if part.address.stored]
        return sorted({key for part in parts for key in part.keys_among(conn, gone)})

    def watched(self) -> list[WatchedTable]:
        """The source tables whose changes make partitions stale, in the declaration's order."""
        return [
            WatchedTable(self.name, *split_table(source), self._stale_keys(by), self.assets, by)
            for source, by in self.declared.stale_when.items()
        ]

    @property
    def polls(self) -> bool:
        """Whether changes of source tables are detected by polling."""
        return bool(self.declared.stale_when) and self.declared.stale_by == "polling"

    def mark_changes(self, conn: psycopg.Connection[Any]) -> None:
        """With `stale_by: polling`, mark what has changed since the last poll, in `conn`'s transaction."""
        if self.polls:
            for table in self.watched():
                table.mark_changes(conn)

    def _stale_keys(self, by: str) -> str:
        """SQL for the partition keys of the rows in `changed_rows`."""
        cut = self.declared.partitions
        if by in self.statements:
            return self.statements[by].sql.replace("%%", "%")
        return changed_keys(by, cut.calendar, cut.timezone) if cut else "select '' from changed_rows limit 1"

    def _all_keys(self, conn: psycopg.Connection[Any]) -> Sequence[str]:
        if isinstance(self.partitions_def, dg.DynamicPartitionsDefinition):
            return list(self.names(conn))
        return list(self.partitions_def.get_partition_keys()) if self.partitions_def else [WHOLE]

    def _keys_from(self, conn: psycopg.Connection[Any], name: str) -> Sequence[str]:
        """The keys that a statement returns."""
        return [str(row[0]) for row in self.statements[name](conn, **self._binds) if is_key(row[0])]

    @property
    def _binds(self) -> dict[str, Any]:
        """The binds of statements about the whole backfill."""
        return {"assets": self.assets, "seconds": self.declared.fresh_within}

    # ---- checks -----------------------------------------------------------------------------------------------

    @cached_property
    def rules(self) -> CheckRules:
        """The declared checks, and the two that every backfill has."""
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
        if cut and cut.calendar:  # a window that is not over yet is not a partition and can't be late
            late, now = generic["every late one"], open_key(cut.calendar, cut.timezone)
            generic["every late one"] = f"select * from ({late}) as l where l.partition < {now}"  # noqa: S608
        for name in common.keys() & declared.keys():
            raise UserError(
                f"{self.folder / 'defs.yaml'}: every backfill already has a check {name!r}.",
                hint="Choose another name for yours.",
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
