"""The scoring chain under a real webserver and daemon: a range of days from the UI, and an automatic morning.

The tests follow one installation through a day, in this order. What only waits for the clock is tested in
`domains/scoring/test_schedule_and_sensors.py`, where the clock can be moved.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from benchmarks.servers import Webserver
from dagster_backfills_tests.e2e.chain import ASSETS, worked_before
from dagster_backfills_tests.e2e.conftest import Stack, StackFactory
from dagster_backfills_tests.e2e.graphql import (
    LOCATION,
    REPOSITORY,
    asset_key,
    finished_backfill,
    launch_backfill,
    runs,
    wait_for,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

TODAY = datetime.now(UTC).date()
_RANGES = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  assetPartitionStatuses { ... on TimePartitionStatuses { ranges { status startKey endKey } } } } } }"""
_TICKS = """query($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) { ... on Sensor {
  sensorState { ticks(limit: 5) { skipReason } } } } }"""


def ago(days: int) -> date:
    return TODAY - timedelta(days=days)


RANGE = [ago(n).isoformat() for n in range(25, 20, -1)]
MISSED = ago(2)  # its gates are all open at any time of today


def _fill(conn: psycopg.Connection) -> None:
    """Inserts twenty members who stop coming one by one, their coach, and an invalid one who joined ten days ago."""
    conn.execute("insert into scoring.gyms values ('g', 'Gym')")
    conn.execute("insert into scoring.coaches values ('c', 'g')")
    conn.execute(
        "insert into scoring.members (id, gym_id, first_name, last_name, status, joined_date)"
        " select 'm' || n, 'g', 'First', 'Last', 'active', %s from generate_series(1, 20) as n",
        [ago(300)],
    )
    conn.execute(
        "insert into scoring.members (id, gym_id, first_name, last_name, status, joined_date, expected_visits_per_week)"
        " values ('broken', 'g', 'First', 'Last', 'active', %s, -1)",
        [ago(10)],
    )
    conn.execute("insert into scoring.member_coaches select 'c', id from scoring.members")
    conn.execute(
        "insert into scoring.visits select 'm' || n, %s::date - 3 * k - 2 * n"
        " from generate_series(1, 20) as n, generate_series(0, 60) as k",
        [ago(1)],
    )
    # The last day that was scored before the outage.
    worked_before(conn, [ago(3)])


@pytest.fixture(scope="module")
def gym(start_stack: StackFactory) -> Iterator[Stack]:
    # Two missed days are enough here.
    with start_stack(fill=_fill, variables={"SCORING_CATCH_UP_DAYS": "2"}) as started:
        yield started


def materialized_ranges(webserver: Webserver, asset: str) -> list[tuple[str, str]]:
    """The first and last day of each range that the UI shows as materialized."""
    node = webserver.ask(_RANGES, key=asset_key(asset))["assetNodeOrError"]
    ranges = node["assetPartitionStatuses"]["ranges"]
    return [(r["startKey"], r["endKey"]) for r in ranges if r["status"] == "MATERIALIZED"]


def skip_reasons(webserver: Webserver, sensor: str) -> list[str]:
    """The skip reasons of the sensor's last ticks, as in the UI."""
    selector = {
        "repositoryName": REPOSITORY,
        "repositoryLocationName": LOCATION,
        "sensorName": sensor,
    }
    ticks = webserver.ask(_TICKS, sensor=selector)["sensorOrError"]["sensorState"]["ticks"]
    return [tick["skipReason"] or "" for tick in ticks]


def outcomes(stack: Stack, day: date) -> dict[str, str]:
    with stack.connect() as conn:
        return dict(
            conn.execute("select asset, outcome from scoring.chain_days where day = %s", [day]).fetchall()
        )


def test_a_range_of_days_from_the_ui_is_one_run_that_scores_each_day_as_of_itself(gym: Stack) -> None:
    backfill = launch_backfill(gym.webserver, ASSETS, RANGE)
    ended = wait_for("the backfill", lambda: finished_backfill(gym.webserver, backfill), timeout=600)
    assert ended == "COMPLETED_SUCCESS"
    for asset in ASSETS:
        assert (RANGE[0], RANGE[-1]) in materialized_ranges(gym.webserver, asset)
    assert len(runs(gym.webserver, tags=[{"key": "dagster/backfill", "value": backfill}])) == 1
    with gym.connect() as conn:
        for asset in ASSETS:
            order = conn.execute(
                "select day::text from scoring.chain_days where asset = %s and day = any(%s::date[])"
                " order by started_at",
                [asset, RANGE],
            ).fetchall()
            assert [day for (day,) in order] == RANGE
        wrong = conn.execute(
            "select s.day, s.member_id from scoring.commitment_scores as s where s.days_since_last_visit"
            " is distinct from (select s.day - max(v.visited_on) from scoring.visits as v"
            " where v.member_id = s.member_id and v.visited_on <= s.day)"
        ).fetchall()
        counted = conn.execute(
            "select day::text, count(*) from scoring.commitment_scores where day = any(%s::date[]) group by day",
            [RANGE],
        ).fetchall()
    assert wrong == []
    assert dict(counted) == dict.fromkeys(RANGE, 20)


def test_a_missed_day_is_caught_up_and_holds_the_chain_while_it_is_partial(gym: Stack) -> None:
    commitment, churn = ASSETS[:2]
    wait_for("the missed day", lambda: outcomes(gym, MISSED).get(commitment) == "partial", timeout=600)
    held = f"{MISSED}: held: {commitment} is partial (1 of 21 members failed"
    wait_for(
        "the reason",
        lambda: any(held in reason for reason in skip_reasons(gym.webserver, "churn_risk_after_commitment")),
        timeout=300,
    )
    assert churn not in outcomes(gym, MISSED)


def test_a_repair_releases_the_chain_and_the_sensors_complete_it(gym: Stack) -> None:
    with gym.connect() as conn:
        conn.execute("update scoring.members set expected_visits_per_week = 2 where id = 'broken'")
    launch_backfill(gym.webserver, ASSETS[:1], [MISSED.isoformat()])
    done = dict.fromkeys(ASSETS, "complete")
    wait_for("the day, complete in all three", lambda: outcomes(gym, MISSED) == done, timeout=600)
    triggers = {
        tag["value"]
        for run in runs(gym.webserver, tags=[{"key": "dagster/partition", "value": MISSED.isoformat()}])
        for tag in run["tags"]
        if tag["key"] == "scoring/trigger"
    }
    assert triggers == {
        "missed_scoring_days",
        "churn_risk_after_commitment",
        "coach_actions_after_churn_risk",
    }


def test_members_have_the_scores_of_their_newest_day(gym: Stack) -> None:
    with gym.connect() as conn:
        rows = conn.execute(
            "select distinct m.commitment_day = c.newest, m.churn_risk_day = r.newest from scoring.members as m"
            " inner join (select member_id, max(day) as newest from scoring.commitment_scores group by 1) as c"
            " on m.id = c.member_id"
            " inner join (select member_id, max(day) as newest from scoring.churn_risk_scores group by 1) as r"
            " on m.id = r.member_id"
        ).fetchall()
    assert rows == [(True, True)]
