"""Dagster definitions of one declared backfill: assets, the job for scattered work, sensors, checks, schedule."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg
from pydantic import Field

from dagster_backfills.components.declaration import Schedule, Table, split_table
from dagster_backfills.components.resources import database_resources, resource_keys
from dagster_backfills.components.selection import GENERIC, Selection, Which
from dagster_backfills.components.validation import compute_function
from dagster_backfills.lib.automation import partition_sync_sensor, refresh_sensor
from dagster_backfills.lib.engine.model import WHOLE, Compute, Query, Write, WriteSet
from dagster_backfills.lib.errors import UserError
from dagster_backfills.lib.postgres.queries import Statement

if TYPE_CHECKING:
    from dagster_backfills.components.postgres_backfill import PostgresBackfill


class Refresh(dg.Config):
    """Which partitions to write."""

    which: Which = Field(
        default=Which.due,
        description="due: stale, missing or failed, but for those that failed a moment ago; needed: stale, missing or "
        "failed; stale; missing; failed; all; named: those in `partitions`.",
    )
    partitions: list[str] = Field(default=[], description="Partition keys, with `which: named`.")


@dataclass(frozen=True)
class Backfill:
    """One declaration with its statements, and what Dagster is told of it."""

    declared: "PostgresBackfill"
    name: str
    group: str
    statements: Mapping[str, Statement]

    @cached_property
    def partitions_def(self) -> dg.PartitionsDefinition | None:
        return self.declared.partitions.definition() if self.declared.partitions else None

    @property
    def assets(self) -> list[str]:
        return [table.asset for table in self.declared.tables]

    @property
    def database(self) -> str:
        """The key of the resource that is the database."""
        return resource_keys(self.declared.database)[0]

    @property
    def io_manager(self) -> str:
        """The key of the I/O manager."""
        return resource_keys(self.declared.database)[1]

    def connect(self, context: Any) -> AbstractContextManager[psycopg.Connection[Any]]:
        """A connection from the resource of a run or a sensor."""
        return getattr(context.resources, self.database).connect()

    def definitions(self) -> dg.Definitions:
        job = self._job()
        return dg.Definitions(
            assets=[self._assets(), *self._sources()],
            jobs=[job],
            sensors=self._sensors(job),
            schedules=self._schedules(job),
            resources=database_resources(self.declared.database),
        )

    # ---- what is written --------------------------------------------------------------------------------------

    def writes(self, tables: Sequence[Table], run: dg.DagsterRun) -> list[Write]:
        """What the engine is to do for these tables, in the name of this run."""
        params = {"backfill_id": run.tags.get("dagster/backfill") or run.root_run_id or run.run_id}
        return [self._write(table, params) for table in tables]

    def _write(self, table: Table, params: Mapping[str, Any]) -> Write:
        def query(name: str) -> Query:
            return Query(self.statements[name].sql, params, only_missing=table.only_missing)

        return Write(
            table.target(partitioned=self.partitions_def is not None),
            query(table.query) if table.query else self._compute(table, params),
            units=query(table.units) if table.units else None,
        )

    def _compute(self, table: Table, params: Mapping[str, Any]) -> Compute:
        assert table.compute is not None and table.reads is not None
        function: Callable[[Any], Any] = compute_function(table.compute, table.asset)  # type: ignore[assignment]
        reads = self.statements[table.reads].sql

        def rows(conn: psycopg.Connection, keys: Sequence[str], units: Sequence[str] | None) -> Any:
            import pandas as pd

            cursor = conn.execute(
                reads, {**params, "partition_keys": list(keys), "unit_keys": units, "run_id": ""}
            )
            names = [column.name for column in cursor.description or ()]
            return function(pd.DataFrame(cursor.fetchall(), columns=names))

        return Compute(rows)

    def _assets(self) -> dg.AssetsDefinition:
        tables = self.declared.tables
        names = {self._out(table): table for table in tables}

        @dg.multi_asset(
            name=self.name,
            outs={name: self._asset_out(table) for name, table in names.items()},
            internal_asset_deps={name: self._dependencies(table) for name, table in names.items()},
            deps=[dg.AssetKey(split_table(source)) for source in self.declared.sources],
            can_subset=True,
            partitions_def=self.partitions_def,
            backfill_policy=dg.BackfillPolicy.single_run(),
            required_resource_keys={self.database},
        )
        def written(context: dg.AssetExecutionContext) -> Iterator[dg.Output[WriteSet | None]]:
            selected = context.op_execution_context.selected_output_names
            chosen = [name for name in names if name in selected]
            keys = list(context.partition_keys) if self.partitions_def else [WHOLE]
            self._mark_left_out(context, [names[name] for name in names if name not in selected], keys)
            yield dg.Output(self._set([names[name] for name in chosen], context.run), chosen[0])
            for name in chosen[1:]:
                yield dg.Output(None, name)

        return written

    def _set(
        self, tables: Sequence[Table], run: dg.DagsterRun, keys: Sequence[str] | None = None
    ) -> WriteSet:
        return WriteSet(
            self.writes(tables, run),
            keys=keys,
            partitions_def=self.partitions_def,
            batch_seconds=self.declared.batch_seconds,
        )

    def _mark_left_out(
        self, context: dg.AssetExecutionContext, left: Sequence[Table], keys: Sequence[str]
    ) -> None:
        """Tables that are made of those being written, and are not written with them, are stale from now on.

        Before the first row is there, so that a run that dies leaves none of them wrongly fresh.
        """
        if left:
            with self.connect(context) as conn:
                GENERIC.mark(conn, assets=[table.asset for table in left], partition_keys=list(keys))
                conn.commit()

    def _asset_out(self, table: Table) -> dg.AssetOut:
        return dg.AssetOut(
            key=table.key_path,
            description=table.description,
            metadata={
                **table.target(partitioned=self.partitions_def is not None).metadata(),
                "dagster/table_name": ".".join(table.key_path),
            },
            group_name=self.group,
            kinds={"postgres"},
            owners=table.owners,
            tags=table.tags,
            code_version=self._code_version(table),
            is_required=False,
            io_manager_key=self.io_manager,
        )

    @staticmethod
    def _out(table: Table) -> str:
        schema, name = table.key_path
        return "".join(c if c.isalnum() else "_" for c in (name if schema != name else f"{schema}_{name}"))

    def _texts(self, table: Table) -> str:
        names = (table.query, table.reads, table.units, table.compute)
        return "\n".join(
            self.statements[n].sql if n in self.statements else n for n in names if n is not None
        )

    def _code_version(self, table: Table) -> str:
        return hashlib.sha256(self._texts(table).encode()).hexdigest()[:12]

    def _dependencies(self, table: Table) -> set[dg.AssetKey]:
        """The sources and the tables before this one that its statements name; all sources if they name none."""
        text = self._texts(table)
        before = self.declared.tables[: self.declared.tables.index(table)]
        named = [*self.declared.sources, *(other.table for other in before)]
        found = [name for name in named if name in text] or self.declared.sources
        return {dg.AssetKey(split_table(name)) for name in found}

    def _sources(self) -> list[dg.AssetSpec]:
        return []

    # ---- what finds scattered work ----------------------------------------------------------------------------

    def selection(self, instance: dg.DagsterInstance | None = None) -> Selection:
        """How partitions are found. What is missing is known to Dagster, where no statement of the backfill says it."""
        return Selection(
            self.assets,
            self._every,
            self._due,
            self._due
            if self.declared.due or instance is None
            else lambda conn: self._missing(conn, instance),
        )

    def _every(self, conn: psycopg.Connection[Any]) -> Sequence[str]:
        if self.declared.partitions is not None and self.declared.partitions.keys is not None:
            return [row[0] for row in self.statements[self.declared.partitions.keys](conn)]
        return list(self.partitions_def.get_partition_keys()) if self.partitions_def else [WHOLE]

    def _due(self, conn: psycopg.Connection[Any]) -> Sequence[str]:
        if self.declared.due is None:
            return []
        return [row[0] for row in self.statements[self.declared.due](conn, assets=self.assets, seconds=0)]

    def _missing(self, conn: psycopg.Connection[Any], instance: dg.DagsterInstance) -> Sequence[str]:
        if self.partitions_def is None:
            return []
        there = instance.get_materialized_partitions(dg.AssetKey(self.declared.tables[0].key_path))
        return [key for key in self._every(conn) if key not in there]

    def _job(self) -> dg.JobDefinition:
        ops = [self._op(position) for position in range(len(self.declared.tables))]

        @dg.config_mapping
        def flat(config: Refresh) -> dict[str, Any]:
            given = {"config": {"which": config.which.value, "partitions": config.partitions}}
            return {"ops": {op.name: given for op in ops}}

        @dg.job(
            config=flat,
            name=f"refresh_{self.name}",
            description=f"Write the partitions of {self.name} that need it, however scattered, in one run.",
            executor_def=dg.in_process_executor,
            tags={"backfills/backfill": self.name},
        )
        def refresh() -> None:
            for op in ops:
                op()

        return refresh

    def _op(self, position: int) -> dg.OpDefinition:
        """The step for partitions of which the tables from this one on need work: those before it are as they are."""
        tables = self.declared.tables[position:]

        @dg.op(
            name=f"write_{self._out(tables[0])}",
            description="Find the partitions and write them, reporting each by itself.",
            out=dg.Out(io_manager_key=self.io_manager),
            required_resource_keys={self.database},
        )
        def write(context: dg.OpExecutionContext, config: Refresh) -> WriteSet:
            return self._set(tables, context.run, self._keys(context, config, position))

        return write

    def _keys(self, context: dg.OpExecutionContext, config: Refresh, position: int) -> list[str]:
        if (config.which is Which.named) != bool(config.partitions):
            raise dg.Failure("Give `partitions` with `which: named`, and only then.", allow_retries=False)
        try:
            with self.connect(context) as conn:
                chosen = self.selection(context.instance).choose(conn, config.which, config.partitions)
                conn.commit()
        except UserError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        keys = [key for key, first in chosen.items() if first == position]
        if isinstance(self.partitions_def, dg.DynamicPartitionsDefinition):
            context.instance.add_dynamic_partitions(str(self.partitions_def.name), keys)
        context.log.info(f"{len(keys):,} partitions to write ({config.which.value}).")
        return keys

    # ---- what runs by itself ----------------------------------------------------------------------------------

    def _sensors(self, job: dg.JobDefinition) -> list[dg.SensorDefinition]:
        sensors = []
        if isinstance(self.partitions_def, dg.DynamicPartitionsDefinition):
            assert self.declared.partitions is not None and self.declared.partitions.keys is not None
            keys = self.statements[self.declared.partitions.keys].sql
            sensors.append(
                partition_sync_sensor(
                    f"{self.partitions_def.name}_sync",
                    self.partitions_def,
                    lambda: keys,
                    on_new=None if self.declared.due else self._mark_new,
                    resource=self.database,
                )
            )
        if sensors or self.declared.stale_when or self.declared.due:
            sensors.append(
                refresh_sensor(
                    f"{self.name}_refresh",
                    job,
                    self._count_due,
                    what="partitions due",
                    resource=self.database,
                )
            )
        return sensors

    def _mark_new(self, conn: psycopg.Connection[Any], keys: Sequence[str]) -> None:
        """Partitions that are seen for the first time are due."""
        GENERIC.mark(conn, assets=self.assets, partition_keys=list(keys))

    def _count_due(self, conn: psycopg.Connection[Any]) -> int:
        return len(self.selection().choose(conn, Which.due))

    def _schedules(self, job: dg.JobDefinition) -> list[dg.ScheduleDefinition]:
        given = self.declared.schedule
        if given is None:
            return []
        schedule = Schedule(cron=given) if isinstance(given, str) else given
        calendar = isinstance(self.partitions_def, dg.TimeWindowPartitionsDefinition)
        return [
            dg.ScheduleDefinition(
                name=schedule.name or f"{self.name}_schedule",
                job=job,
                cron_schedule=schedule.cron,
                execution_timezone=schedule.timezone,
                run_config={"which": "needed" if calendar else "all"},
                default_status=dg.DefaultScheduleStatus.RUNNING,
                description=f"Writes {'what needs it' if calendar else 'everything'}; what is right is not rewritten.",
            )
        ]
