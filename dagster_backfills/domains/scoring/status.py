"""The chain of the last days in rows for people: one a day, one cell a link. Only reads."""

from dataclasses import dataclass
from datetime import date, datetime

import psycopg

from dagster_backfills.domains.scoring.chain import DayState
from dagster_backfills.domains.scoring.days import last_days
from dagster_backfills.domains.scoring.tables import CHAIN


@dataclass(frozen=True)
class AssetDay:
    """How one asset stands on one day; `outcome` is `missing` where no run has touched it."""

    asset: str
    outcome: str
    expected: int | None
    done: int | None
    failed: int | None
    reason: str | None
    run_id: str | None
    started_at: datetime | None
    finished_at: datetime | None

    def __str__(self) -> str:
        if self.expected is None or self.outcome == "running":
            return self.outcome
        failed = f", {self.failed:,} failed" if self.failed else ""
        return f"{self.outcome}: {self.done:,} of {self.expected:,}{failed}"


@dataclass(frozen=True)
class ChainDay:
    """One day with its links in the chain's order."""

    day: date
    links: tuple[AssetDay, ...]

    @property
    def remark(self) -> str:
        """Why the chain does not go on, from the first link that is not complete."""
        first = next((link for link in self.links if link.outcome != "complete"), None)
        return (first.reason or "") if first else ""


def chain_of(conn: psycopg.Connection, newest: date, days: int) -> list[ChainDay]:
    """The last `days` days up to `newest`, newest first."""
    wanted, states = last_days(conn, newest, days)
    return [
        ChainDay(day, tuple(_link(t.asset, states.get((t.asset, day))) for t in CHAIN))
        for day in reversed(wanted)
    ]


def _link(asset: str, state: DayState | None) -> AssetDay:
    if state is None:
        return AssetDay(asset, "missing", *[None] * 7)
    return AssetDay(
        asset,
        state.outcome,
        state.expected,
        state.done,
        state.failed,
        state.reason,
        state.run_id,
        state.started_at,
        state.finished_at,
    )
