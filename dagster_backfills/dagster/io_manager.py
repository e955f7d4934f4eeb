"""The Postgres I/O manager: writes assets' outputs to their tables through the engine, and loads them as inputs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg
import psycopg
from pydantic import Field

from dagster_backfills.dagster.catalog import table_metadata
from dagster_backfills.dagster.cause import started_by
from dagster_backfills.dagster.failures import without_retry
from dagster_backfills.dagster.layout import address_of, refuse_twins
from dagster_backfills.dagster.partition_events import (
    Reporter,
    announce_partitions,
    narrow_to_unreported,
    stock_storage_note,
)
from dagster_backfills.dagster.report import (
    ProgressLog,
    failure_of,
    partition_metadata,
    run_metadata,
)
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.engine.failures import describe, is_lost
from dagster_backfills.engine.model import WHOLE, Compute, Frame, Query, Target, Write, WriteSet
from dagster_backfills.engine.outcome import Outcome
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.runner import Runner
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.table.catalog import Table, read_table
from dagster_backfills.environment import from_environment
from dagster_backfills.errors import UserError

VARIABLES = "BACKFILLS_"  # prefix of the environment variables of the engine's settings


def engine_settings() -> EngineSettings:
    """The engine's settings from the environment. Raises UserError that names an invalid variable."""
    return EngineSettings(**from_environment(EngineSettings, VARIABLES))


class PostgresIOManager(EngineSettings, dg.ConfigurableIOManager):
    """Stores an asset's output in the table that the asset key names, and loads it by partition and column.

    An asset returns a `Query` (computed and written inside the database), a pandas DataFrame or an Arrow table
    (COPY, then the same merge), a `Compute` (Python rules applied to each batch), a `WriteSet` (several tables in the
    same batches), or None if it has written its rows itself. Asset metadata: `partition_expr` (the column of the
    partition key), `write_mode` (`upsert`, `insert_missing`, `replace`), `key_columns`, `unit_column`, `table`,
    `journal`.

    Partitions are reported as materialized as soon as their batch is committed. If some can't be written, the step
    fails at the end with one `Failure` that lists them. Units that can't be written are recorded in the ledger.

    The input's annotation decides whether it is loaded as a pandas DataFrame, an Arrow table or a SQLAlchemy Select.
    It has the requested partitions, and only the `columns` that the input's metadata names, if any.

    Every engine setting is a field. Set it for a deployment with an environment variable, such as
    `BACKFILLS_BATCH_UNITS`, or for one run in the run's configuration.
    """

    postgres: dg.ResourceDependency[PostgresResource]
    retry_wait_seconds: float = Field(
        default=30.0,
        ge=0,
        description="Seconds to wait before the step is retried, after the connection to the server was lost.",
    )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Raises UserError that names an invalid environment variable."""
        engine_settings()

    def settings(self, write_set: WriteSet) -> EngineSettings:
        if write_set.settings is not None:
            return write_set.settings
        given = {name: getattr(self, name) for name in EngineSettings.model_fields}
        if given["target_seconds"]:
            given["target_seconds"] = max(given["target_seconds"], write_set.batch_seconds)
        return EngineSettings(**{**given, "max_batch_units": max(self.max_batch_units, self.batch_units)})

    def handle_output(self, context: dg.OutputContext, obj: Any) -> Iterator[Any]:  # type: ignore[override]
        if obj is None:
            if context.has_asset_key and context.has_asset_partitions:
                narrow_to_unreported(context)  # written and reported together with another output
            return
        try:
            with without_retry():
                yield from _Storing(self, context, _write_set(context, obj)).events()
        except Exception as error:
            if is_lost(error):
                # The engine has already waited for the server. The retried step resumes where this one stopped.
                raise dg.RetryRequested(max_retries=3, seconds_to_wait=self.retry_wait_seconds) from error
            if not isinstance(error, psycopg.Error):
                raise
            _, state, message = describe(error)
            raise dg.Failure(
                f"Postgres refused: {message} (SQLSTATE {state})", allow_retries=False
            ) from error

    def load_input(self, context: dg.InputContext) -> Any:
        # Imports pandas and SQLAlchemy, which loading a code location and most runs do not need.
        from dagster_backfills.dagster.load import load_rows

        with without_retry():
            return load_rows(context, self.postgres)


def _write_set(context: dg.OutputContext, obj: Any) -> WriteSet:
    if isinstance(obj, WriteSet):
        return obj
    if not context.has_asset_key:
        raise UserError(
            f"Output {context.name!r} of {context.op_def.name} is not an asset, so its table is unknown.",
            hint="Return a WriteSet whose targets name their tables, or use another I/O manager for the op.",
        )
    target = Target.from_metadata("/".join(context.asset_key.path), context.definition_metadata or {})
    source = obj if isinstance(obj, Query | Compute | Frame) else Frame(obj)
    return WriteSet([Write(target, source)])


@dataclass
class _Storing:
    """Stores one output."""

    manager: PostgresIOManager
    context: dg.OutputContext
    write_set: WriteSet
    tables: dict[str, Table] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.partitions_def = self.write_set.partitions_def
        if self.context.has_asset_partitions:
            self.partitions_def = self.context.asset_partitions_def
        self.keys = self._keys()
        self.modes = {write.target.asset: write.target.mode for write in self.write_set.writes}
        self.own = "/".join(self.context.asset_key.path) if self.context.has_asset_key else None

    def events(self) -> Iterator[Any]:
        if not self.keys or not self.write_set.writes:
            self.context.log.info("No partition is due. Nothing to write.")
            return
        if self.own is not None and (
            note := stock_storage_note(self.context.step_context.instance, len(self.keys))
        ):
            self.context.log.info(note)
        runner = Runner(
            connect=self.manager.postgres.connect,
            run_identity=run_identity(self.context.step_context.dagster_run, self.context.step_key),
            settings=self.manager.settings(self.write_set),
            log=self.context.log.warning,
        )
        with self.manager.postgres.connect() as conn:
            self.names = self.write_set.names(conn)
            # Tables with an address of their own are read at the end, so that `around` records a missing one.
            self._read_tables(conn, [w for w in self.write_set.writes if w.address is None])
            writes = [w if w.address else self._addressed(conn, w) for w in self.write_set.writes]
        if self.own is None and self.keys != [WHOLE]:
            # Dagster has planned no materializations for a run that selects its partitions itself.
            announce_partitions(self.context, [dg.AssetKey(a.split("/")) for a in self.modes], self.keys)
        progress = ProgressLog(len(self.keys), self.context.log.info)
        reporter = Reporter(self.context)
        for finished in runner.run(writes, self.keys, self.write_set.around):
            materializations = self._materializations(runner.outcome, finished)
            yield from reporter.report(materializations, failing=bool(runner.outcome.failed))
            progress.step(len(finished), runner)
        self.context.log.info(progress.line(runner))
        if runner.outcome.failed:
            raise failure_of(runner.outcome, len(self.keys), self.names)
        self._describe(runner.outcome, reporter)

    def _addressed(self, conn: psycopg.Connection, write: Write) -> Write:
        target, table = write.target, self.tables[write.target.asset]
        address = address_of(target, table, self.partitions_def, self.keys)
        refuse_twins(conn, target, table, self.partitions_def, self.context.step_context.instance)
        return replace(write, address=address)

    def _materializations(self, outcome: Outcome, keys: Sequence[str]) -> list[dg.AssetMaterialization]:
        """The materializations of each asset's written partitions. Dagster reports the unpartitioned asset itself."""
        return [
            dg.AssetMaterialization(
                asset.split("/"),
                partition=None if key == WHOLE else key,
                metadata=partition_metadata(outcome.counts_of(asset, key), mode, partitioned=key != WHOLE)
                | ({"name": name} if (name := self.names.get(key)) else {})
                | outcome.reported.get(key, {}),
            )
            for asset, mode in self.modes.items()
            for key in keys
            if (key != WHOLE or self.own is None) and outcome.is_complete(asset, key)
        ]

    def _describe(self, outcome: Outcome, reporter: Reporter) -> None:
        """Add totals and columns once per asset. Added to every partition, they would outweigh all other events."""
        if self.own is None:
            return
        with self.manager.postgres.connect() as conn:
            self._read_tables(conn, [w for w in self.write_set.writes if w.address is not None])
        for asset, mode in self.modes.items():
            metadata = run_metadata(outcome, asset) | table_metadata(self.tables[asset])
            if asset != self.own:
                reporter.describe(dg.AssetKey(asset.split("/")), metadata)
                continue
            if self.keys == [WHOLE]:
                metadata |= partition_metadata(outcome.of(asset, WHOLE), mode, partitioned=False)
            self.context.add_output_metadata(metadata)

    def _read_tables(self, conn: psycopg.Connection, writes: Sequence[Write]) -> None:
        self.tables |= {w.target.asset: read_table(conn, *w.target.schema_and_table) for w in writes}

    def _keys(self) -> list[str]:
        if self.write_set.keys is not None:
            return list(dict.fromkeys(self.write_set.keys))
        if not self.context.has_asset_partitions:
            return [WHOLE]
        keys = list(self.context.asset_partition_keys)
        if len(keys) < 2 or self.partitions_def is None:
            return keys
        # Restore the definition's order (oldest first), which `asset_partition_keys` does not keep.
        requested = set(keys)
        all_keys = self.partitions_def.get_partition_keys(
            dynamic_partitions_store=self.context.step_context.instance
        )
        ordered = [key for key in all_keys if key in requested]
        return ordered if len(ordered) == len(requested) else keys


def run_identity(run: dg.DagsterRun, step: str = "") -> RunIdentity:
    """The run and step, and whether they resume an earlier run: as a retry, or re-executed from failure."""
    resumes = run.tags.get("dagster/is_resume_retry") == "true" or "dagster/retry_number" in run.tags
    root = run.root_run_id or run.run_id
    return RunIdentity(run.run_id, step, root, resumes, started_by=started_by(run.tags))
