"""Helpers that create gym data, and run the scoring assets against the test's database."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from dagster_backfills.dagster.io_manager import PostgresIOManager
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.scoring import assets, checks
from dagster_backfills.defs.scoring.one_gym import gym_job
from dagster_backfills.domains.scoring.settings import ScoringSettings
from dagster_backfills.domains.scoring.tables import CHAIN
from dagster_backfills_tests.domains.scoring.histories import DAY

ALL = [assets.commitment_scores, assets.churn_risk_scores, assets.coach_actions]


@dataclass
class Gyms:
    """Inserts rows into the source tables."""

    conn: psycopg.Connection

    def member(
        self,
        name: str,
        *ago: int,
        joined: int = 400,
        gym: str = "g1",
        coaches: tuple[str, ...] = (),
        per_week: float | None = None,
        status: str = "active",
        day: date = DAY,
    ) -> str:
        """Inserts a member with visits the given numbers of days before `day`."""
        self.gym(gym)
        self.conn.execute(
            "insert into scoring.members (id, gym_id, first_name, last_name, status, joined_date,"
            " expected_visits_per_week) values (%s, %s, 'First', 'Last', %s, %s, %s)",
            [name, gym, status, day - timedelta(days=joined), per_week],
        )
        for days in ago:
            self.visit(name, days, day)
        for coach in coaches:
            self.coach(coach, gym)
            self.conn.execute("insert into scoring.member_coaches values (%s, %s)", [coach, name])
        return name

    def visit(self, name: str, ago: int, day: date = DAY) -> None:
        self.conn.execute("insert into scoring.visits values (%s, %s)", [name, day - timedelta(days=ago)])

    def gym(self, name: str) -> None:
        self.conn.execute("insert into scoring.gyms values (%s, %s) on conflict do nothing", [name, name])

    def coach(self, name: str, gym: str = "g1") -> None:
        self.gym(gym)
        self.conn.execute("insert into scoring.coaches values (%s, %s) on conflict do nothing", [name, gym])

    def rows(self, query: str, *params: object) -> list[tuple]:
        return self.conn.execute(query, params).fetchall()  # type: ignore[call-overload]


@pytest.fixture
def gyms(conn: psycopg.Connection) -> Gyms:
    return Gyms(conn)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


Score = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def resources(database_url: str) -> dict[str, object]:
    """The domain's resources on the test's own database."""
    return resources_of(database_url)


def resources_of(url: str, **settings: object) -> dict[str, object]:
    postgres = PostgresResource(url=url)
    return {
        "postgres": postgres,
        "scoring_settings": ScoringSettings(**settings),  # type: ignore[arg-type]
        "io_manager": PostgresIOManager(postgres=postgres, retry_wait_seconds=0),
    }


@pytest.fixture
def score(database_url: str, instance: dg.DagsterInstance) -> Score:
    """Run assets for a day (or from `day` to `until`) in one run, with their checks."""

    def run(
        *which: dg.AssetsDefinition,
        day: date = DAY,
        until: date | None = None,
        raise_on_error: bool = False,
        gym: str = "",
        tags: dict[str, str] | None = None,
        **settings: object,
    ) -> dg.ExecuteInProcessResult:
        chosen = list(which) or ALL
        wanted = {key for asset in chosen for key in asset.keys}
        if gym:
            targets = [target for target in CHAIN if dg.AssetKey(target.asset.split("/")) in wanted]
            return gym_job(*targets).execute_in_process(
                run_config={"gym": gym, "day": day.isoformat()},
                instance=instance,
                resources=resources_of(database_url, **settings),
                raise_on_error=raise_on_error,
                tags=tags,
            )
        beside = [c for c in _checks() if {k.asset_key for k in c.check_keys} <= wanted]
        span = {
            "dagster/asset_partition_range_start": day.isoformat(),
            "dagster/asset_partition_range_end": until.isoformat() if until else "",
        }
        return dg.materialize(
            [*chosen, *beside],
            partition_key=None if until else day.isoformat(),
            instance=instance,
            resources=resources_of(database_url, **settings),
            raise_on_error=raise_on_error,
            tags={**(span if until else {}), **(tags or {})},
        )

    return run


def _checks() -> list[dg.AssetChecksDefinition]:
    return [c for c in vars(checks).values() if isinstance(c, dg.AssetChecksDefinition)]


def check_results(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    """The check results of a run, by asset and check name."""
    return {f"{e.asset_key.path[-1]}.{e.check_name}": e for e in result.get_asset_check_evaluations()}


def healthy(gyms: Gyms, count: int) -> list[str]:
    """Insert valid members."""
    return [gyms.member(f"m{n:03}", 16, 30 + n, 44 + n, coaches=("c1",)) for n in range(count)]


def slow_run(url: str, table: str, root: Path) -> subprocess.Popen[bytes]:
    """A slow run in its own process, with one member per batch."""
    command = [
        sys.executable,
        "-m",
        "dagster_backfills_tests.domains.scoring.slow_run",
        url,
        table,
        DAY.isoformat(),
    ]
    return subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL)
