"""The I/O manager of the three histories: day by day through the engine, each day locked, recorded and reported."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg
import psycopg
from psycopg import sql
from pydantic import Field

from dagster_backfills.defs.scoring import days
from dagster_backfills.defs.scoring.days import Coverage
from dagster_backfills.defs.scoring.reporting import WHAT, closing_line, day_metadata, write_metadata
from dagster_backfills.defs.scoring.settings import ScoringSettings
from dagster_backfills.defs.scoring.tables import DaySlice, Work
from dagster_backfills.lib.engine.ledger import RunIdentity
from dagster_backfills.lib.engine.runner import Runner, is_lost
from dagster_backfills.lib.errors import UserError
from dagster_backfills.lib.partition_events import materialization_events
from dagster_backfills.lib.postgres.catalog import read_table
from dagster_backfills.lib.postgres.report import table_metadata
from dagster_backfills.lib.postgres.resource import PostgresResource

# Of a longer range only the newest days get a picture: drawing one takes longer than scoring a small day.
_PICTURES = 7
# After so many new rows the planner is told of the day: it takes a day that it has not heard of for an empty one,
# and would join a second run of it row by row. In a range of days, at its end or after so many more.
_ANALYZE_ROWS = 10_000
_ANALYZE_RANGE_ROWS = 500_000


class DayWriter(dg.ConfigurableIOManager):
    """Stores a `Work`: every partition is a day, worked oldest first, its members in batches, each durable.

    A day that could not be written fails alone; at the end the step raises one Failure that lists such days. A
    day that an attempt left unfinished goes on where that attempt stopped.
    """

    postgres: dg.ResourceDependency[PostgresResource]
    scoring_settings: dg.ResourceDependency[ScoringSettings]
    retry_wait_seconds: float = Field(
        default=30.0,
        ge=0,
        description="After the server stayed away too long: seconds to the step's next try.",
    )

    def handle_output(self, context: dg.OutputContext, obj: Work) -> Iterator[Any]:  # type: ignore[override]
        keys = sorted(context.asset_partition_keys)
        storing = _Storing(self, context, obj)
        try:
            for at, day in enumerate(keys):
                yield from storing.day(day, picture=len(keys) - at <= _PICTURES, last=day == keys[-1])
        except UserError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error
        except Exception as error:
            if not is_lost(error):
                raise
            raise dg.RetryRequested(max_retries=3, seconds_to_wait=self.retry_wait_seconds) from error
        if storing.failed:
            first = "; ".join(f"{day}: {reason}" for day, reason in list(storing.failed.items())[:5])
            raise dg.Failure(
                description=f"{len(storing.failed):,} of {len(keys):,} days could not be written ({first}).",
                allow_retries=False,
            )
        with self.postgres.connect() as conn:
            context.add_output_metadata(table_metadata(read_table(conn, *obj.target.schema_and_table)))

    def load_input(self, context: dg.InputContext) -> None:
        raise NotImplementedError("The histories are read with SQL, not as inputs.")


@dataclass
class _Storing:
    """One asset's days on their way into Postgres."""

    writer: DayWriter
    context: dg.OutputContext
    work: Work
    failed: dict[str, str] = field(default_factory=dict)
    unknown_rows: int = 0  # to the planner

    def __post_init__(self) -> None:
        self.asset = self.work.target.asset
        run = self.context.step_context.dagster_run
        self.run_id = run.run_id
        retried = run.tags.get("dagster/is_resume_retry") == "true" or "dagster/retry_number" in run.tags
        self.lineage = [r for r in (run.root_run_id, run.parent_run_id) if r] if retried else []

    def day(self, day: str, *, picture: bool, last: bool) -> Iterator[Any]:
        """Work one day and report it; where it fails, say so."""
        log = self.context.log
        with (
            self.writer.postgres.connect() as conn,
            days.day_lock(conn, self.asset, day, log.info),
        ):
            began = time.monotonic()
            try:
                runner = self._run(conn, day)
                self._tell_planner(conn, runner.outcome.of(self.asset, day).inserted, last)
                yield from self._finish(conn, day, runner, time.monotonic() - began, picture)
            except GeneratorExit:
                raise
            except BaseException as error:
                reason = str(error) or type(error).__name__
                log.error(f"[JOB FAILURE] {self.asset} {day}: {reason}, {time.monotonic() - began:.1f} s")
                self._record_failure(day, reason)
                raise

    def _run(self, conn: psycopg.Connection, day: str) -> Runner:
        root, resumes = days.start_day(conn, self.asset, day, self.run_id, self.work.gym, self.lineage)
        if resumes:
            self.context.log.info(f"{self.asset} {day}: going on where an earlier attempt stopped.")
        runner = Runner(
            connect=self.writer.postgres.connect,
            run_identity=RunIdentity(self.run_id, f"{self.context.step_key}[{day}]", root, resumes),
            settings=self.writer.scoring_settings.engine(),
            log=self.context.log.warning,
        )
        for _ in runner.run([self.work.write()], {self.asset: DaySlice(self.work.gym)}, [day]):
            pass
        return runner

    def _finish(
        self, conn: psycopg.Connection, day: str, runner: Runner, seconds: float, picture: bool
    ) -> Iterator[Any]:
        what, counts = WHAT[self.asset], runner.outcome.of(self.asset, day)
        coverage = days.coverage_of(conn, self.asset, day)
        # A member that is due no more may have failed too: its row, which should have gone, is still there.
        coverage = replace(coverage, failed=max(coverage.failed, len(runner.outcome.unit_failures)))
        failure = runner.outcome.failed.get(day)
        if failure is not None:
            days.finish_day(conn, self.asset, day, self.run_id, "failed", failure.message, coverage)
            self.failed[day] = failure.message
            self.context.log.error(f"[JOB FAILURE] {self.asset} {day}: {failure.message}, {seconds:.1f} s")
            return
        outcome, reason = coverage.verdict(self.writer.scoring_settings.max_failed_percent, what)
        days.finish_day(conn, self.asset, day, self.run_id, outcome, reason, coverage)
        self.context.log.info(f"[JOB SUCCESS] {closing_line(self.asset, day, counts, coverage, seconds)}")
        if reason:
            self.context.log.warning(f"{self.asset} {day} is partial and holds the chain: {reason}.")
        metadata = (
            write_metadata(counts, coverage, what)
            | day_metadata(conn, self.asset, day, picture=picture)
            | {"outcome": outcome, "seconds": round(seconds, 3)}
        )
        yield from materialization_events(
            self.context,
            [dg.AssetMaterialization(self.asset.split("/"), partition=day, metadata=metadata)],
        )

    def _tell_planner(self, conn: psycopg.Connection, inserted: int, last: bool) -> None:
        self.unknown_rows += inserted
        if self.unknown_rows >= (_ANALYZE_ROWS if last else _ANALYZE_RANGE_ROWS):
            table = sql.Identifier(*self.work.target.schema_and_table)
            conn.execute(sql.SQL("analyze {} (day, member_id)").format(table))
            conn.commit()
            self.unknown_rows = 0

    def _record_failure(self, day: str, reason: str) -> None:
        """As well as it can be: where the database is away, the row stays `running` and its run's end tells."""
        try:
            with self.writer.postgres.connect() as conn:
                coverage = Coverage(0, 0, 0)
                with suppress(psycopg.ProgrammingError):  # a table that is missing may be what failed
                    coverage = days.coverage_of(conn, self.asset, day)
                conn.rollback()
                days.finish_day(conn, self.asset, day, self.run_id, "failed", reason[:1000], coverage)
        except Exception as error:
            self.context.log.warning(f"{self.asset} {day}: the failure could not be recorded: {error}")
