"""The record of who works which day: `scoring.chain_days`, and the lock that keeps a day to one run at a time."""

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
    """Hold the day for this session, which is in autocommit; wait, saying so, while another run holds it.

    A dead session's lock is gone.
    """
    name, waited = f"day of {asset}", False
    while not STATEMENTS.take_day(conn, name=name, day=day):
        if not waited:
            log(f"{asset} {day}: another run is working this day; waiting until it is done.")
            waited = True
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        if not conn.closed and not conn.broken:
            STATEMENTS.leave_day(conn, name=name, day=day)


def coverage_of(conn: psycopg.Connection, asset: str, day: str) -> Coverage:
    """Counted from the tables, so that it holds whoever wrote them."""
    counted = STATEMENTS.by_name[f"coverage_of_{asset.partition('/')[2]}"]
    with conn.transaction():
        conn.execute(_IN_ORDER)
        return Coverage(*counted(conn, day=day))


def utc_now(conn: psycopg.Connection) -> datetime:
    """The chain's clock is the database's: a worker's that is wrong would score a day before it is over."""
    return STATEMENTS.utc_now(conn)


def last_days(conn: psycopg.Connection, newest: date, count: int) -> tuple[list[date], States]:
    """The last `count` days up to `newest`, oldest first, and how the chain stands on them, by asset and day."""
    days = due_days(newest, count)
    with conn.cursor(row_factory=class_row(DayState)) as cursor:
        rows = STATEMENTS.chain_days(cursor, first_day=days[0], last_day=days[-1])
    return days, {(state.asset, state.day): state for state in rows}


def scored_before(conn: psycopg.Connection, day: date) -> bool:
    """Whether anything was scored before a day."""
    return STATEMENTS.scored_before(conn, day=day)
