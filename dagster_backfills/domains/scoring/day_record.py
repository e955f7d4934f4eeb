"""Lock a day while it is scored, record its state in `scoring.chain_days`, and report the counts.

Not here: scoring it (`histories`, `engine`).
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from dagster_backfills.domains.scoring import days
from dagster_backfills.domains.scoring.days import Coverage
from dagster_backfills.domains.scoring.reporting import NOUN, day_metadata, summary_line
from dagster_backfills.domains.scoring.statements import STATEMENTS
from dagster_backfills.domains.scoring.tables import ACTIONS, CHURN, COMMITMENT
from dagster_backfills.engine.model import Target
from dagster_backfills.engine.outcome import Outcome
from dagster_backfills.engine.run_identity import RunIdentity

# ANALYZE after this many new rows. Without statistics the planner expects the new day to be empty, and chooses nested
# loops when it is run again. In a range of days: on the last day, or after _ANALYZE_RANGE_ROWS.
_ANALYZE_ROWS = 10_000
_ANALYZE_RANGE_ROWS = 500_000


@dataclass
class DayRecord:
    """Records one run of one asset, day by day. Pass `around` to a `WriteSet`.

    basis: inputs other than source tables, such as the weights. A run never resumes an attempt with another basis.
    own_runs: this run, and the runs that it automatically retries. Only their attempts are resumed.
    last_day: the last day of the run.
    """

    target: Target
    connect: Callable[[], AbstractContextManager[psycopg.Connection]]
    log: logging.Logger
    gym: str | None
    basis: str
    own_runs: Sequence[str]
    last_day: str
    max_failed_percent: float
    unanalyzed_rows: int = 0

    def around(self, day: str, run: RunIdentity, work: Callable[[RunIdentity], Outcome]) -> dict[str, Any]:
        """Call `work` for one day, and record its result or failure."""
        asset = self.target.asset
        with self._session() as conn, days.day_lock(conn, asset, day, self.log.info):
            started = time.monotonic()
            try:
                outcome = work(self._start(conn, day, run))
                self._analyze(conn, outcome.of(asset, day).inserted, day == self.last_day)
                return self._finish(conn, day, run.run_id, outcome, time.monotonic() - started)
            except BaseException as error:
                reason = str(error) or type(error).__name__
                self.log.error(f"[JOB FAILURE] {asset} {day}: {reason}, {time.monotonic() - started:.1f} s")
                self._record_failure(day, run.run_id, reason)
                raise

    @contextmanager
    def _session(self) -> Iterator[psycopg.Connection]:
        """A connection in autocommit, so that no transaction stays open while the engine works."""
        with self.connect() as conn:
            conn.autocommit = True
            yield conn

    def _start(self, conn: psycopg.Connection, day: str, run: RunIdentity) -> RunIdentity:
        """Record that the run works on the day. It resumes an earlier attempt of its own with the same basis."""
        asset = self.target.asset
        root, resumes = STATEMENTS.start_day(
            conn, asset=asset, day=day, run_id=run.run_id, gym=self.gym, own_runs=list(self.own_runs)
        )
        if resumes:
            self.log.info(f"{asset} {day}: resuming an earlier attempt of this run.")
        # The engine resumes by step name, so the basis is part of the name.
        basis = self.basis or self._upstream(conn, day)
        return replace(run, step=f"{run.step}[{day}] on {basis}", root_run_id=root, resumes=resumes)

    def _upstream(self, conn: psycopg.Connection, day: str) -> str:
        """The upstream step's run for the day."""
        before = {CHURN.asset: COMMITMENT.asset, ACTIONS.asset: CHURN.asset}[self.target.asset]
        return STATEMENTS.upstream_of_day(conn, asset=before, day=day) or f"no {before}"

    def _finish(
        self, conn: psycopg.Connection, day: str, run_id: str, outcome: Outcome, seconds: float
    ) -> dict[str, Any]:
        asset, counts = self.target.asset, outcome.of(self.target.asset, day)
        coverage = days.coverage_of(conn, asset, day)
        # Includes members who are no longer due, but whose row could not be removed.
        failed = sum(failure.partition == day for failure in outcome.unit_failures)
        coverage = replace(coverage, failed=max(coverage.failed, failed))
        failure = outcome.failed.get(day)
        if failure is not None:
            self._store(conn, day, run_id, "failed", failure.message, coverage)
            self.log.error(f"[JOB FAILURE] {asset} {day}: {failure.message}, {seconds:.1f} s")
            return {}
        result, reason = coverage.outcome(self.max_failed_percent, NOUN[asset])
        if result == "complete" and self.gym is not None and STATEMENTS.weights_of_day(conn, day=day) > 1:
            result, reason = "partial", "other gyms were scored with other weights: run the whole day"
        self._store(conn, day, run_id, result, reason, coverage)
        self.log.info(f"[JOB SUCCESS] {summary_line(asset, day, counts, coverage, seconds)}")
        if reason:
            self.log.warning(f"{asset} {day} is partial and holds the chain: {reason}.")
        return day_metadata(conn, asset, day, coverage) | {"outcome": result, "seconds": round(seconds, 3)}

    def _store(
        self,
        conn: psycopg.Connection,
        day: str,
        run_id: str,
        outcome: str,
        reason: str | None,
        coverage: Coverage,
    ) -> None:
        STATEMENTS.finish_day(
            conn, asset=self.target.asset, day=day, run_id=run_id, outcome=outcome, reason=reason, **vars(coverage)
        )  # fmt: skip

    def _analyze(self, conn: psycopg.Connection, inserted: int, last: bool) -> None:
        self.unanalyzed_rows += inserted
        if self.unanalyzed_rows >= (_ANALYZE_ROWS if last else _ANALYZE_RANGE_ROWS):
            table = sql.Identifier(*self.target.schema_and_table)
            conn.execute(sql.SQL("analyze {} (day, member_id)").format(table))
            self.unanalyzed_rows = 0

    def _record_failure(self, day: str, run_id: str, reason: str) -> None:
        """Record the failure if the database is available. Otherwise the row stays `running` after its run ended."""
        asset = self.target.asset
        try:
            with self._session() as conn:
                coverage = Coverage(0, 0, 0)
                with suppress(psycopg.ProgrammingError):  # a missing table may be the cause of the failure
                    coverage = days.coverage_of(conn, asset, day)
                self._store(conn, day, run_id, "failed", reason[:1000], coverage)
        except Exception as error:
            self.log.warning(f"{asset} {day}: the failure could not be recorded: {error}")
