"""One declared backfill as objects: its statements, its writes, its rules, and the Dagster definitions made of them."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg
from psycopg import sql

from dagster_backfills.components.assets import build_assets, build_views
from dagster_backfills.components.declaration import TableDeclaration
from dagster_backfills.components.planning import build_plan_job
from dagster_backfills.components.refresh import build_asset_job, build_job, build_schedules, build_sensors
from dagster_backfills.components.validation import named_function
from dagster_backfills.dagster.checks import CheckRule, CheckRules, engine_rules
from dagster_backfills.dagster.own_resources import database_resources, resource_keys
from dagster_backfills.engine.calendar import calendar_key
from dagster_backfills.engine.compute import compute_of
from dagster_backfills.engine.model import WHOLE, Query, Write, WriteSet
from dagster_backfills.engine.selection import GENERIC, Selection
from dagster_backfills.engine.watched import WatchedTable
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.statements import Statement
from dagster_backfills.postgres.table_names import split_table

if TYPE_CHECKING:
    from dagster_backfills.components.postgres_backfill import PostgresBackfill
    from dagster_backfills.dagster.private import UnresolvedAssetJobDefinition


@dataclass(frozen=True)
class Backfill:
    """One declaration with its statements, and what Dagster is told of it."""

    declared: "PostgresBackfill"
    name: str
    group: str
    statements: Mapping[str, Statement]
    folder: Path

    # ---- what Dagster is told ---------------------------------------------------------------------------------

    def definitions(self) -> dg.Definitions:
        return dg.Definitions(
            assets=[self.assets_def, *build_views(self)],
            asset_checks=[self.checks],
            jobs=[self.job, self.asset_job, build_plan_job(self)],
            sensors=self.sensors,
            schedules=self.schedules,
            resources={} if self.declared.resources else database_resources(self.declared.database),
        )

    def own_things(self) -> list[str]:
        """What no other backfill of a project may have."""
        cut = self.partitions_def
        sets = [cut.name] if isinstance(cut, dg.DynamicPartitionsDefinition) else []
        return [
            f"the name {self.name!r}",
            *(f"table {'.'.join(split_table(table.table))}" for table in self.declared.tables),
            *(f"the set of partitions {name!r}" for name in sets),
        ]

    @cached_property
    def partitions_def(self) -> dg.PartitionsDefinition | None:
        return self.declared.partitions.definition(self.name) if self.declared.partitions else None

    @cached_property
    def assets_def(self) -> dg.AssetsDefinition:
        return build_assets(self)

    @cached_property
    def checks(self) -> dg.AssetChecksDefinition:
        return self.rules.definition()

    @cached_property
    def job(self) -> dg.JobDefinition:
        return build_job(self)

    @cached_property
    def asset_job(self) -> "UnresolvedAssetJobDefinition":
        return build_asset_job(self)

    @cached_property
    def sensors(self) -> list[dg.SensorDefinition]:
        return build_sensors(self)

    @cached_property
    def schedules(self) -> list[dg.ScheduleDefinition]:
        return build_schedules(self)

    # ---- where it lies ----------------------------------------------------------------------------------------

    @property
    def assets(self) -> list[str]:
        """The assets' keys as paths, in the order of the tables."""
        return [table.asset for table in self.declared.tables]

    @property
    def sources(self) -> list[str]:
        """The tables that are read and not written here."""
        return list(dict.fromkeys([*self.declared.sources, *self.declared.stale_when]))

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
        def query(name: str, *, only_missing: bool = False) -> Query:
            return Query(self.statements[name].sql, params, only_missing=only_missing)

        return Write(
            table.target(partitioned=self.partitions_def is not None),
            compute_of(
                named_function(table.compute, table.asset), self.statements[table.statement].sql, params
            )
            if table.compute
            else query(table.statement, only_missing=table.only_missing),
            units=query(table.units_statement) if table.units_statement else None,
        )

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

    def names(self, conn: psycopg.Connection[Any]) -> dict[str, str | None]:
        """Of partitions that are rows, by key, the oldest first: what stands behind the key in its statement."""
        cut = self.declared.partitions
        rows = self.statements[cut.keys](conn) if cut and cut.keys else []
        return {str(key): str(name[0]) if any(name[:1]) else None for key, *name in rows}

    def add_partitions(self, instance: dg.DagsterInstance, keys: Sequence[str]) -> None:
        """Make keys known to Dagster, where the partitions are rows."""
        if isinstance(self.partitions_def, dg.DynamicPartitionsDefinition):
            instance.add_dynamic_partitions(str(self.partitions_def.name), list(keys))

    def mark(self, conn: psycopg.Connection[Any], assets: Sequence[str], keys: Sequence[str]) -> None:
        """Make partitions stale."""
        GENERIC.mark(conn, assets=list(assets), partition_keys=list(keys))

    def watched(self) -> list[WatchedTable]:
        """The source tables whose changes make partitions stale."""
        return [
            WatchedTable(self.name, *split_table(source), self._stale_keys(by), self.assets, by)
            for source, by in self.declared.stale_when.items()
        ]

    def _stale_keys(self, by: str) -> str:
        """SQL for the keys of the partitions that `changed_rows` are of."""
        if by in self.statements:
            return self.statements[by].sql.replace("%%", "%")
        cut = self.declared.partitions
        if cut is None:
            return "select '' from changed_rows limit 1"
        column = sql.Identifier("c", by).as_string(None)
        key = calendar_key(cut.calendar, column, cut.timezone) if cut.calendar else column
        return f"select {key} from changed_rows as c"  # noqa: S608

    def look(self, conn: psycopg.Connection[Any]) -> None:
        """Mark what has changed in the sources, where no trigger does, and commit."""
        if self.declared.stale_by == "look":
            for table in self.watched():
                table.look(conn)
            conn.commit()

    def _every(self, conn: psycopg.Connection[Any]) -> Sequence[str]:
        if isinstance(self.partitions_def, dg.DynamicPartitionsDefinition):
            return list(self.names(conn))
        return list(self.partitions_def.get_partition_keys()) if self.partitions_def else [WHOLE]

    def _given(self, conn: psycopg.Connection[Any], name: str) -> Sequence[str]:
        """The keys that a statement gives."""
        rows = self.statements[name](conn, assets=self.assets, seconds=self.declared.fresh_within)
        return [str(row[0]) for row in rows]

    def _unmaterialized(
        self, conn: psycopg.Connection[Any], instance: dg.DagsterInstance | None
    ) -> Sequence[str]:
        if self.partitions_def is None or instance is None:
            return []
        there = instance.get_materialized_partitions(dg.AssetKey(self.declared.tables[0].key_path))
        return [key for key in self._every(conn) if key not in there]

    # ---- what must hold of it ---------------------------------------------------------------------------------

    @cached_property
    def rules(self) -> CheckRules:
        """The declared checks, and the two that hold for every backfill."""
        table = {declared.table: declared.asset for declared in self.declared.tables}
        declared = {
            name: CheckRule(
                table[check.table] if check.table else self.assets[0],
                check.query,
                check.description or f"{name.replace('_', ' ').capitalize()}.",
                warns=check.warn,
            )
            for name, check in self.declared.check_list
        }
        common, generic = engine_rules(self.assets[0], self.assets[-1], self.declared.fresh_within)
        for name in common.keys() & declared.keys():
            raise UserError(
                f"{self.folder / 'defs.yaml'}: every backfill has a check {name!r} already.",
                hint="Give yours another name.",
            )
        return CheckRules(
            f"{self.group}_checks",
            common | declared,
            lambda: {name: statement.sql for name, statement in self.statements.items()} | generic,
            {"assets": self.assets, "seconds": self.declared.fresh_within},
            names=self.names,
            database=self.database,
        )
