"""Scoring as a backfill of the command line: its partitions are days, and a run computes the whole chain."""

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
from dagster_backfills.domains.scoring.status import ChainDay, choose, every_day, parse_day
from dagster_backfills.domains.scoring.tables import CHAIN
from dagster_backfills.engine.partition_status import PartitionStatus
from dagster_backfills.engine.plan import Report
from dagster_backfills.engine.selection import Which

JOB = "scoring_chain_job"


class Scoring:
    """All three assets of each day, in sequence."""

    name = "scoring"
    job = JOB
    assets = [each.asset for each in CHAIN]  # noqa: RUF012

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection[Any]]:
        with database() as conn:
            conn.autocommit = False
            yield conn

    def partition_statuses(self, conn: psycopg.Connection[Any]) -> list[PartitionStatus]:
        """All days, oldest first."""
        return [_status_of(day) for day in every_day(conn)]

    def choose(self, conn: psycopg.Connection[Any], which: Which, wanted: Sequence[str]) -> list[str]:
        """Select days by name or status. Raises UserError for a day that can't be scored."""
        return choose(conn, which, wanted)

    def plan(self, which: Which, keys: Sequence[str], log: Any, gym: str | None = None) -> Report:
        with self.connect() as conn:
            days = choose(conn, which, keys)
        return plan_days(PostgresResource().connect, days, settings_from(), log, gym)

    def launch(self, which: Which, keys: Sequence[str]) -> list[tuple[str, int]]:
        """Score these days, one run per range of consecutive days. Returns each run's ID and exit code."""
        done = []
        for first, last in date_ranges({parse_day(key) for key in keys}):
            tags = {"dagster/partition": f"{first}"}
            if first != last:
                tags = {
                    "dagster/asset_partition_range_start": f"{first}",
                    "dagster/asset_partition_range_end": f"{last}",
                }
            done.append(launch(JOB, None, tags))
        return done


def _status_of(day: ChainDay) -> PartitionStatus:
    links = {link.asset.removeprefix("scoring/"): str(link) for link in day.links}
    return PartitionStatus(
        f"{day.day}", missing=day.missing, failed=day.failed, more={**links, "remark": day.remark}
    )


def date_ranges(days: Iterable[date]) -> list[tuple[date, date]]:
    """The first and last day of each range of consecutive days, oldest first."""
    ranges: list[tuple[date, date]] = []
    for day in sorted(days):
        if ranges and day - ranges[-1][1] == timedelta(days=1):
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges
