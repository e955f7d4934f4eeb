"""Status of the scored days, and the selection of days by command-line arguments. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import psycopg

from dagster_backfills.domains.scoring.chain import DayState, newest_day
from dagster_backfills.domains.scoring.days import last_days
from dagster_backfills.domains.scoring.settings import setting_at_load
from dagster_backfills.domains.scoring.tables import CHAIN
from dagster_backfills.engine.selection import Which
from dagster_backfills.errors import UserError

_FIRST = "select min(day) from scoring.chain_days"


@dataclass(frozen=True)
class ChainDay:
    """One day, with the states of its assets in the chain's order."""

    day: date
    links: tuple[DayState, ...]

    @property
    def missing(self) -> bool:
        return any(link.outcome != "complete" for link in self.links)

    @property
    def failed(self) -> int:
        return sum(link.failed or 0 for link in self.links)

    @property
    def remark(self) -> str:
        """Why the chain is held: the reason of the first asset that is not complete."""
        first = next((link for link in self.links if link.outcome != "complete"), None)
        return (first.reason or "") if first else ""


def chain_of(conn: psycopg.Connection, newest: date, days: int) -> list[ChainDay]:
    """The last `days` days up to `newest`, newest first."""
    dates, states = last_days(conn, newest, days)
    return [
        ChainDay(day, tuple(states.get((t.asset, day), DayState(t.asset, day)) for t in CHAIN))
        for day in reversed(dates)
    ]


def every_day(conn: psycopg.Connection) -> list[ChainDay]:
    """All days since the first scored one, and at least those that the sensors check. Oldest first."""
    newest = newest_day(datetime.now(UTC).date())
    (first,) = conn.execute(_FIRST).fetchone() or (None,)
    days = max((newest - (first or newest)).days + 1, setting_at_load("catch_up_days"))
    return chain_of(conn, newest, days)[::-1]


def choose(conn: psycopg.Connection, which: Which, named: Sequence[str] = ()) -> list[str]:
    """Select days by name or by status. Raises UserError for a day that can't be scored."""
    if named:
        return [f"{parse_day(each)}" for each in dict.fromkeys(named)]
    days = every_day(conn)
    if which is not Which.all:
        missing, failed = which not in (Which.failed, Which.stale), which not in (Which.missing, Which.stale)
        days = [day for day in days if (day.missing and missing) or (day.failed and failed)]
    return [f"{day.day}" for day in days]


def parse_day(text: str | None) -> date:
    """Parse a day; None means yesterday. Raises UserError if it is not a date, or can't be scored yet."""
    newest = newest_day(datetime.now(UTC).date())
    if text is None:
        return newest
    try:
        day = datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError as error:
        raise UserError(
            f"{text!r} is not a day.", "Use the format YYYY-MM-DD, such as 2026-06-30."
        ) from error
    first = setting_at_load("first_day")
    if not first <= day <= newest:
        raise UserError(
            f"{day} can't be scored: the days are {first} to {newest}.",
            "A day can be scored once it has ended (UTC).",
        )
    return day
