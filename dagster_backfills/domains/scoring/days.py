"""The record of who works which day: `scoring.chain_days`, and the lock that keeps a day to one run at a time."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime

import psycopg
from psycopg.rows import class_row

from dagster_backfills.domains.scoring.chain import DayState, Outcome, States, due_days
from dagster_backfills.domains.scoring.statements import STATEMENTS
from dagster_backfills.domains.scoring.tables import ACTIONS, CHURN, COMMITMENT

_LOCK = "select pg_try_advisory_lock(hashtext(%(name)s), (%(day)s::date - date '2000-01-01'))"
_UNLOCK = "select pg_advisory_unlock(hashtext(%(name)s), (%(day)s::date - date '2000-01-01'))"
_POLL_SECONDS = 0.5
# All tables of a day are in the order of members in an index; put into hashes, they take twice the time.
_IN_ORDER = "set local enable_hashjoin = off; set local max_parallel_workers_per_gather = 0"


@dataclass(frozen=True)
class Coverage:
    """Members (or coaches) of a day: due, done, and failed by the ledger's account."""

    expected: int
    done: int
    failed: int

    def verdict(self, max_failed_percent: float, what: str) -> tuple[Outcome, str | None]:
        """Whether the day is complete, and what is amiss where it is not."""
        absent = self.expected - self.done - self.failed
        if absent > 0:
            return (
                "partial",
                f"{absent:,} of {self.expected:,} {what} have neither a row nor a recorded failure",
            )
        if self.failed * 100 > self.expected * max_failed_percent:
            return "partial", (
                f"{self.failed:,} of {self.expected:,} {what} failed, more than {max_failed_percent:g} %"
            )
        return "complete", None


@contextmanager
def day_lock(conn: psycopg.Connection, asset: str, day: str, log: Callable[[str], None]) -> Iterator[None]:
    """Hold the day for this session; wait, saying so, while another run holds it. A dead session's lock is gone."""
    binds = {"name": f"day of {asset}", "day": day}
    waited = False
    while not _taken(conn, binds):
        if not waited:
            log(f"{asset} {day}: another run is working this day; waiting until it is done.")
            waited = True
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        if not conn.closed and not conn.broken:
            conn.rollback()
            conn.execute(_UNLOCK, binds)
            conn.commit()


def _taken(conn: psycopg.Connection, binds: dict[str, str]) -> bool:
    row = conn.execute(_LOCK, binds).fetchone()
    conn.commit()
    return bool(row and row[0])


def start_day(
    conn: psycopg.Connection, asset: str, day: str, run_id: str, gym: str | None, own_runs: Sequence[str]
) -> tuple[str, bool]:
    """Enter the run as the day's worker. Returns the first attempt that it goes on from, and whether it does."""
    row = conn.execute(
        STATEMENTS["start_day"],
        {"asset": asset, "day": day, "run_id": run_id, "gym": gym, "own_runs": list(own_runs)},
    ).fetchone()
    conn.commit()
    assert row is not None
    return row[0], row[1]


def upstream_of(conn: psycopg.Connection, asset: str, day: str) -> str:
    """Which computation of the link before, for the day, the asset rests on."""
    before = {CHURN.asset: COMMITMENT.asset, ACTIONS.asset: CHURN.asset}[asset]
    row = conn.execute(STATEMENTS["upstream_of_day"], {"asset": before, "day": day}).fetchone()
    conn.commit()
    return row[0] if row else f"no {before}"


def finish_day(
    conn: psycopg.Connection,
    asset: str,
    day: str,
    run_id: str,
    outcome: Outcome,
    reason: str | None,
    coverage: Coverage,
) -> None:
    """Enter how the day ended."""
    conn.execute(
        STATEMENTS["finish_day"],
        {"asset": asset, "day": day, "run_id": run_id, "outcome": outcome, "reason": reason,
         "expected": coverage.expected, "done": coverage.done, "failed": coverage.failed},
    )  # fmt: skip
    conn.commit()


def coverage_of(conn: psycopg.Connection, asset: str, day: str) -> Coverage:
    """Counted from the tables, so that it holds whoever wrote them."""
    conn.execute(_IN_ORDER)
    row = conn.execute(STATEMENTS[f"coverage_of_{asset.partition('/')[2]}"], {"day": day}).fetchone()
    conn.commit()
    assert row is not None
    return Coverage(*row)


def has_one_set_of_weights(conn: psycopg.Connection, day: str) -> bool:
    """Whether all commitment scores of the day were made under the same weights."""
    row = conn.execute(STATEMENTS["weights_of_day"], {"day": day}).fetchone()
    conn.commit()
    assert row is not None
    return row[0] <= 1


def utc_now(conn: psycopg.Connection) -> datetime:
    """The chain's clock is the database's: a worker's that is wrong would score a day before it is over."""
    row = conn.execute("select clock_timestamp()").fetchone()
    conn.commit()
    assert row is not None
    return row[0]


def last_days(conn: psycopg.Connection, newest: date, count: int) -> tuple[list[date], States]:
    """The last `count` days up to `newest`, oldest first, and how the chain stands on them, by asset and day."""
    days = due_days(newest, count)
    with conn.cursor(row_factory=class_row(DayState)) as cursor:
        rows = cursor.execute(
            STATEMENTS["chain_days"], {"first_day": days[0], "last_day": days[-1]}
        ).fetchall()
    conn.commit()
    return days, {(state.asset, state.day): state for state in rows}


def scored_before(conn: psycopg.Connection, day: date) -> bool:
    """Whether anything was scored before a day."""
    row = conn.execute("select exists (select 1 from scoring.chain_days where day < %s)", [day]).fetchone()
    conn.commit()
    return bool(row and row[0])
