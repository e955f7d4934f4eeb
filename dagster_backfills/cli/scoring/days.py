"""Scoring as the verbs know it: a backfill whose partitions are days and whose run is the whole chain of a day."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

import psycopg

from dagster_backfills.cli.database import database
from dagster_backfills.cli.launch import launch
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.domains.scoring.plan import plan_days
from dagster_backfills.domains.scoring.settings import settings_from
from dagster_backfills.domains.scoring.status import ChainDay, choose, day_of, every_day
from dagster_backfills.domains.scoring.tables import CHAIN
from dagster_backfills.engine.plan import Report
from dagster_backfills.engine.selection import Which
from dagster_backfills.engine.standing import Standing

JOB = "scoring_chain_job"


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
        """Every day, the oldest first."""
        return [_standing(day) for day in every_day(conn)]

    def choose(self, conn: psycopg.Connection[Any], which: Which, wanted: Sequence[str]) -> list[str]:
        """The days that are meant. Raises UserError for one that can't be scored."""
        return choose(conn, which, wanted)

    def plan(self, which: Which, keys: Sequence[str], log: Any, gym: str | None = None) -> Report:
        with self.connect() as conn:
            days = choose(conn, which, keys)
        return plan_days(PostgresResource().connect, days, settings_from(), log, gym)

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
    return Standing(
        f"{day.day}", missing=day.missing, failed=day.failed, more={**links, "remark": day.remark}
    )


def stretches(days: Iterable[date]) -> list[tuple[date, date]]:
    """First and last of each row of days without a gap, the oldest first."""
    found: list[tuple[date, date]] = []
    for day in sorted(days):
        if found and day - found[-1][1] == timedelta(days=1):
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found
