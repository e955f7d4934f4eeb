"""The scoring chain under a real webserver and daemon: a range of days from the UI, and a morning without anyone."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest

from benchmarks.servers import Webserver
from dagster_backfills_tests.e2e.conftest import Stack
from dagster_backfills_tests.e2e.graphql import (
    asset_key,
    finished_backfill,
    launch_backfill,
    runs,
    wait_for,
)

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("stack"), pytest.mark.timeout(1500)]

ASSETS = ["scoring/commitment_scores", "scoring/churn_risk_scores", "scoring/coach_actions"]


_RANGES = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  assetPartitionStatuses { ... on TimePartitionStatuses { ranges { status startKey endKey } } } } } }"""


def materialized_ranges(webserver: Webserver, asset: str) -> list[tuple[str, str]]:
    """First and last day of each range that the UI shows as materialized."""
    node = webserver.ask(_RANGES, key=asset_key(asset))["assetNodeOrError"]
    ranges = node["assetPartitionStatuses"]["ranges"]
    return [(r["startKey"], r["endKey"]) for r in ranges if r["status"] == "MATERIALIZED"]


def ago(days: int) -> date:
    return datetime.now(UTC).date() - timedelta(days=days)


@pytest.fixture(scope="module", autouse=True)
def two_days_back() -> Iterator[None]:
    """Of the days that the daemon finds missing, two are enough here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCORING_CATCH_UP_DAYS", "2")
        yield


@pytest.fixture(scope="module")
def gym(stack: Stack) -> Stack:
    """Twenty members who stop coming one after the other, and their coach."""
    with stack.connect() as conn:
        conn.execute("insert into scoring.gyms values ('g', 'Gym')")
        conn.execute("insert into scoring.coaches values ('c', 'g')")
        conn.execute(
            "insert into scoring.members (id, gym_id, first_name, last_name, status, joined_date)"
            " select 'm' || n, 'g', 'First', 'Last', 'active', %s from generate_series(1, 20) as n",
            [ago(300)],
        )
        conn.execute("insert into scoring.member_coaches select 'c', id from scoring.members")
        conn.execute(
            "insert into scoring.visits select 'm' || n, %s::date - 3 * k - 2 * n"
            " from generate_series(1, 20) as n, generate_series(0, 60) as k",
            [ago(1)],
        )
    return stack


def test_a_range_of_days_from_the_ui_is_one_run_oldest_first(gym: Stack) -> None:
    days = [ago(n).isoformat() for n in range(25, 20, -1)]
    backfill = launch_backfill(gym.webserver, ASSETS, days)
    ended = wait_for("the backfill", lambda: finished_backfill(gym.webserver, backfill), timeout=600)
    assert ended == "COMPLETED_SUCCESS"
    for asset in ASSETS:
        assert (days[0], days[-1]) in materialized_ranges(gym.webserver, asset)
    assert len(runs(gym.webserver, tags=[{"key": "dagster/backfill", "value": backfill}])) == 1
    with gym.connect() as conn:
        order = conn.execute(
            "select day::text from scoring.chain_days where asset = 'scoring/coach_actions' and day = any(%s::date[])"
            " order by started_at",
            [days],
        ).fetchall()
        assert [day for (day,) in order] == days
        counted = conn.execute("select day, count(*) from scoring.commitment_scores group by day").fetchall()
        assert {count for _, count in counted} == {20}


def test_the_daemon_catches_up_a_missed_day_and_drives_it_through_the_chain(gym: Stack) -> None:
    """Of the days that are over, the one before yesterday has all its gates behind it at any time of today."""

    def complete() -> bool:
        with gym.connect() as conn:
            rows = conn.execute(
                "select asset from scoring.chain_days where day = %s and outcome = 'complete'",
                [ago(2)],
            ).fetchall()
        return sorted(asset for (asset,) in rows) == sorted(ASSETS)

    wait_for("the day, complete in all three", complete, timeout=600)
    triggers = {
        tag["value"]
        for run in runs(gym.webserver, tags=[{"key": "dagster/partition", "value": ago(2).isoformat()}])
        for tag in run["tags"]
        if tag["key"] == "scoring/trigger"
    }
    assert triggers == {
        "missed_scoring_days",
        "churn_risk_after_commitment",
        "coach_actions_after_churn_risk",
    }
