"""What is done around a day at work: it is locked, entered into `scoring.chain_days`, counted and reported.

Not here: the work itself, which is the engine's, and what the rows hold.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from dagster_backfills.domains.scoring import days
from dagster_backfills.domains.scoring.days import Coverage
from dagster_backfills.domains.scoring.reporting import WHAT, closing_line, day_metadata
from dagster_backfills.domains.scoring.statements import STATEMENTS
from dagster_backfills.domains.scoring.tables import ACTIONS, CHURN, COMMITMENT
from dagster_backfills.engine.ledger import RunIdentity
from dagster_backfills.engine.model import Target
from dagster_backfills.engine.outcome import Outcome

# After so many new rows the planner is told of the day: it takes a day that it has not heard of for an empty one,
# and would join a second run of it row by row. In a range of days, at its end or after so many more.
_ANALYZE_ROWS = 10_000
_ANALYZE_RANGE_ROWS = 500_000


@dataclass
class DayRecord:
    """The record of one run of one asset, day by day; `around` is what a `WriteSet` takes.

    basis: what the rows rest on beside the sources, such as the weights.
    own_runs: this run, and those that it is the automatic retry of: only from their attempts it goes on.
    last_day: the last of the run's days.
    """

    target: Target
    connect: Callable[[], AbstractContextManager[psycopg.Connection]]
    info: Callable[[str], None]
    warn: Callable[[str], None]
    error: Callable[[str], None]
    gym: str | None
    basis: str
    own_runs: Sequence[str]
    last_day: str
    max_failed_percent: float
    unknown_rows: int = 0  # to the planner

    def around(self, day: str, run: RunIdentity, work: Callable[[RunIdentity], Outcome]) -> dict[str, Any]:
        """Work one day and record how it went; where it fails, say so."""
        asset = self.target.asset
        with self._session() as conn, days.day_lock(conn, asset, day, self.info):
            began = time.monotonic()
            try:
                outcome = work(self._take(conn, day, run))
                self._tell_planner(conn, outcome.of(asset, day).inserted, day == self.last_day)
                return self._finish(conn, day, run.run_id, outcome, time.monotonic() - began)
            except BaseException as error:
                reason = str(error) or type(error).__name__
                self.error(f"[JOB FAILURE] {asset} {day}: {reason}, {time.monotonic() - began:.1f} s")
                self._record_failure(day, run.run_id, reason)
                raise

    @contextmanager
    def _session(self) -> Iterator[psycopg.Connection]:
        """In autocommit: no transaction stays open while the engine works."""
        with self.connect() as conn:
            conn.autocommit = True
            yield conn

    def _take(self, conn: psycopg.Connection, day: str, run: RunIdentity) -> RunIdentity:
        """Enter the run as the day's worker; it goes on from an attempt of its own that rests on the same."""
        asset = self.target.asset
        root, resumes = STATEMENTS.start_day(
            conn, asset=asset, day=day, run_id=run.run_id, gym=self.gym, own_runs=list(self.own_runs)
        )
        if resumes:
            self.info(f"{asset} {day}: going on where an earlier attempt of this run stopped.")
        # The engine looks for prior work by the step's name: with the basis in it, it finds none of another basis.
        basis = self.basis or self._upstream(conn, day)
        return RunIdentity(
            run.run_id, f"{run.step}[{day}] on {basis}", root, resumes, started_by=run.started_by
        )

    def _upstream(self, conn: psycopg.Connection, day: str) -> str:
        """Which computation of the link before, for the day, the rows rest on."""
        before = {CHURN.asset: COMMITMENT.asset, ACTIONS.asset: CHURN.asset}[self.target.asset]
        return STATEMENTS.upstream_of_day(conn, asset=before, day=day) or f"no {before}"

    def _finish(
        self, conn: psycopg.Connection, day: str, run_id: str, outcome: Outcome, seconds: float
    ) -> dict[str, Any]:
        asset, counts = self.target.asset, outcome.of(self.target.asset, day)
        coverage = days.coverage_of(conn, asset, day)
        # A member that is due no more may have failed too: its row, which should have gone, is still there.
        failed = sum(failure.partition == day for failure in outcome.unit_failures)
        coverage = replace(coverage, failed=max(coverage.failed, failed))
        failure = outcome.failed.get(day)
        if failure is not None:
            self._enter(conn, day, run_id, "failed", failure.message, coverage)
            self.error(f"[JOB FAILURE] {asset} {day}: {failure.message}, {seconds:.1f} s")
            return {}
        verdict, reason = coverage.verdict(self.max_failed_percent, WHAT[asset])
        if verdict == "complete" and self.gym is not None and STATEMENTS.weights_of_day(conn, day=day) > 1:
            verdict, reason = "partial", "other gyms were scored under other weights: run the whole day"
        self._enter(conn, day, run_id, verdict, reason, coverage)
        self.info(f"[JOB SUCCESS] {closing_line(asset, day, counts, coverage, seconds)}")
        if reason:
            self.warn(f"{asset} {day} is partial and holds the chain: {reason}.")
        return day_metadata(conn, asset, day, coverage) | {"outcome": verdict, "seconds": round(seconds, 3)}

    def _enter(
        self,
        conn: psycopg.Connection,
        day: str,
        run_id: str,
        outcome: str,
        reason: str | None,
        coverage: Coverage,
    ) -> None:
        """How the day ended."""
        STATEMENTS.finish_day(
            conn, asset=self.target.asset, day=day, run_id=run_id, outcome=outcome, reason=reason, **vars(coverage)
        )  # fmt: skip

    def _tell_planner(self, conn: psycopg.Connection, inserted: int, last: bool) -> None:
        self.unknown_rows += inserted
        if self.unknown_rows >= (_ANALYZE_ROWS if last else _ANALYZE_RANGE_ROWS):
            table = sql.Identifier(*self.target.schema_and_table)
            conn.execute(sql.SQL("analyze {} (day, member_id)").format(table))
            self.unknown_rows = 0

    def _record_failure(self, day: str, run_id: str, reason: str) -> None:
        """As well as it can be: where the database is away, the row stays `running` and its run's end tells."""
        asset = self.target.asset
        try:
            with self._session() as conn:
                coverage = Coverage(0, 0, 0)
                with suppress(psycopg.ProgrammingError):  # a table that is missing may be what failed
                    coverage = days.coverage_of(conn, asset, day)
                self._enter(conn, day, run_id, "failed", reason[:1000], coverage)
        except Exception as error:
            self.warn(f"{asset} {day}: the failure could not be recorded: {error}")
