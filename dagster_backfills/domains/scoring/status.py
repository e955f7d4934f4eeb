"""The chain's days in rows for people, one a day, one cell a link, and which of them are meant. Only reads."""

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
    """One day with its links in the chain's order."""

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
        """Why the chain does not go on, from the first link that is not complete."""
        first = next((link for link in self.links if link.outcome != "complete"), None)
        return (first.reason or "") if first else ""


def chain_of(conn: psycopg.Connection, newest: date, days: int) -> list[ChainDay]:
    """The last `days` days up to `newest`, newest first."""
    wanted, states = last_days(conn, newest, days)
    return [
        ChainDay(day, tuple(states.get((t.asset, day), DayState(t.asset, day)) for t in CHAIN))
        for day in reversed(wanted)
    ]


def every_day(conn: psycopg.Connection) -> list[ChainDay]:
    """Every day since the first that was ever scored, and those that automation looks back to; the oldest first."""
    newest = newest_day(datetime.now(UTC).date())
    (first,) = conn.execute(_FIRST).fetchone() or (None,)
    days = max((newest - (first or newest)).days + 1, setting_at_load("catch_up_days"))
    return chain_of(conn, newest, days)[::-1]


def choose(conn: psycopg.Connection, which: Which, named: Sequence[str] = ()) -> list[str]:
    """The days that are meant. Raises UserError for one that can't be scored."""
    if named:
        return [f"{day_of(each)}" for each in dict.fromkeys(named)]
    found = every_day(conn)
    if which is not Which.all:
        missing, failed = which not in (Which.failed, Which.stale), which not in (Which.missing, Which.stale)
        found = [day for day in found if (day.missing and missing) or (day.failed and failed)]
    return [f"{day.day}" for day in found]


def day_of(text: str | None) -> date:
    """The day that was asked for, yesterday for None. Raises UserError for what is no day, or not over yet."""
    newest = newest_day(datetime.now(UTC).date())
    if text is None:
        return newest
    try:
        day = datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError as error:
        raise UserError(f"{text!r} is not a day.", "Write it as YYYY-MM-DD, such as 2026-06-30.") from error
    first = setting_at_load("first_day")
    if not first <= day <= newest:
        raise UserError(
            f"{day} can't be scored: the days are {first} to {newest}.",
            "A day can be scored once it is over (UTC).",
        )
    return day
