"""Scoring as the verbs know it: a backfill whose partitions are days and whose run is the whole chain of a day."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg

from dagster_backfills.cli.domain_runs import database, launch
from dagster_backfills.domains.scoring.chain import newest_day
from dagster_backfills.domains.scoring.settings import setting_at_load
from dagster_backfills.domains.scoring.status import ChainDay, chain_of
from dagster_backfills.domains.scoring.tables import CHAIN
from dagster_backfills.engine.selection import Which
from dagster_backfills.engine.standing import Standing
from dagster_backfills.errors import UserError

JOB = "scoring_chain_job"
_FIRST = "select min(day) from scoring.chain_days"


class Scoring:
    """All three links of each day, in a row."""

    name = "scoring"
    job = JOB
    assets = [each.asset for each in CHAIN]  # noqa: RUF012

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection[Any]]:
        with database() as conn:
            conn.autocommit = False
            yield conn

    def standings(self, conn: psycopg.Connection[Any]) -> list[Standing]:
        """Every day since the first that was ever scored, and those that automation looks back to; the oldest first."""
        newest = newest_day(datetime.now(UTC).date())
        (first,) = conn.execute(_FIRST).fetchone() or (None,)
        days = max((newest - (first or newest)).days + 1, setting_at_load("catch_up_days"))
        return [_standing(day) for day in reversed(chain_of(conn, newest, days))]

    def choose(self, conn: psycopg.Connection[Any], which: Which, wanted: Sequence[str]) -> list[str]:
        """The days that are meant. Raises UserError for one that can't be scored."""
        if wanted:
            return [f"{day_of(each)}" for each in dict.fromkeys(wanted)]
        takes = {
            Which.all: lambda day: True,
            Which.missing: lambda day: day.missing,
            Which.failed: lambda day: day.failed,
            Which.stale: lambda day: day.stale_since,
        }.get(which, lambda day: day.needs_backfill)
        return [day.partition for day in self.standings(conn) if takes(day)]

    def launch(self, which: Which, keys: Sequence[str]) -> list[tuple[str, int]]:
        """Score these days, a run for each stretch of them; each run's id and exit code."""
        done = []
        for first, last in stretches({day_of(key) for key in keys}):
            tags = {"dagster/partition": f"{first}"}
            if first != last:
                tags = {
                    "dagster/asset_partition_range_start": f"{first}",
                    "dagster/asset_partition_range_end": f"{last}",
                }
            done.append(launch(JOB, None, tags))
        return done


def _standing(day: ChainDay) -> Standing:
    links = {link.asset.removeprefix("scoring/"): str(link) for link in day.links}
    broken = any(link.outcome != "complete" for link in day.links)
    failed = sum(link.failed or 0 for link in day.links)
    return Standing(f"{day.day}", missing=broken, failed=failed, more={**links, "remark": day.remark})


def day_of(text: str) -> date:
    """The day that was asked for, yesterday for none. Raises UserError for what is no day, or not over yet."""
    newest = newest_day(datetime.now(UTC).date())
    if not text:
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


def stretches(days: Iterable[date]) -> list[tuple[date, date]]:
    """First and last of each row of days without a gap, the oldest first."""
    found: list[tuple[date, date]] = []
    for day in sorted(days):
        if found and day - found[-1][1] == timedelta(days=1):
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found
