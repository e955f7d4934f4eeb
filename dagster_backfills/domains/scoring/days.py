"""State of the scored days (`scoring.chain_days`), and the lock that allows one run at a time for each day."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime

import psycopg
from psycopg.rows import class_row

from dagster_backfills.domains.scoring.chain import DayState, Outcome, States, due_days
from dagster_backfills.domains.scoring.statements import STATEMENTS

_POLL_SECONDS = 0.5
# A day's tables have indexes in member order: merge joins on them take half the time of hash joins.
_NO_HASH_JOINS = "set local enable_hashjoin = off; set local max_parallel_workers_per_gather = 0"


@dataclass(frozen=True)
class Coverage:
    """How many members (or coaches) of a day are due, are done, and have failed according to the ledger."""

    expected: int
    done: int
    failed: int

    def outcome(self, max_failed_percent: float, noun: str) -> tuple[Outcome, str | None]:
        """Whether the day is complete or partial, and the reason if it is partial."""
        missing = self.expected - self.done - self.failed
        if missing > 0:
            return (
                "partial",
                f"{missing:,} of {self.expected:,} {noun} have neither a row nor a recorded failure",
            )
        if self.failed * 100 > self.expected * max_failed_percent:
            return "partial", (
                f"{self.failed:,} of {self.expected:,} {noun} failed, more than {max_failed_percent:g} %"
            )
        return "complete", None


@contextmanager
def day_lock(conn: psycopg.Connection, asset: str, day: str, log: Callable[[str], None]) -> Iterator[None]:
    """Hold the day's session-level lock. While another run holds it, log that and wait.

    Needs a connection in autocommit. If the session dies, Postgres releases the lock.
    """
    name, waited = f"day of {asset}", False
    while not STATEMENTS.take_day(conn, name=name, day=day):
        if not waited:
            log(f"{asset} {day}: another run is processing this day; waiting for it to finish.")
            waited = True
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        if not conn.closed and not conn.broken:
            STATEMENTS.leave_day(conn, name=name, day=day)


def coverage_of(conn: psycopg.Connection, asset: str, day: str) -> Coverage:
    """Count the coverage of a day in the tables, whatever wrote them."""
    statement = STATEMENTS.by_name[f"coverage_of_{asset.partition('/')[2]}"]
    with conn.transaction():
        conn.execute(_NO_HASH_JOINS)
        return Coverage(*statement(conn, day=day))


def utc_now(conn: psycopg.Connection) -> datetime:
    """The database's time. A worker's clock may be ahead, and would have a day scored before it has ended."""
    return STATEMENTS.utc_now(conn)


def last_days(conn: psycopg.Connection, newest: date, count: int) -> tuple[list[date], States]:
    """The last `count` days up to `newest`, oldest first, and their states by asset and day."""
    days = due_days(newest, count)
    with conn.cursor(row_factory=class_row(DayState)) as cursor:
        rows = STATEMENTS.chain_days(cursor, first_day=days[0], last_day=days[-1])
    return days, {(state.asset, state.day): state for state in rows}
