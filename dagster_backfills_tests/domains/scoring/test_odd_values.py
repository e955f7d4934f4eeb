"""Values of a member that Postgres can store and Python can't represent: at most this member fails."""

from datetime import timedelta

import pytest

from dagster_backfills.defs.scoring import assets
from dagster_backfills.domains.scoring.explain import explain
from dagster_backfills.domains.scoring.weights import Weights
from dagster_backfills.errors import UserError
from dagster_backfills_tests.domains.scoring.conftest import Gyms, Score
from dagster_backfills_tests.domains.scoring.histories import DAY

LEDGER = "select asset, unit, message from backfill.failures where resolved_at is null"
STATE = "select asset, outcome, failed from scoring.chain_days order by started_at"
GOAL = "Member 'odd' can't be scored: expected_visits_per_week must be 0 or more, is"
CAN_T = {
    "update scoring.members set expected_visits_per_week = 'NaN'": f"{GOAL} not a number.",
    "update scoring.members set expected_visits_per_week = -0.5": f"{GOAL} -0.5.",
    "update scoring.members set joined_date = 'infinity'": "cannot subtract infinite dates",
    "update scoring.members set joined_date = '-infinity'": "cannot subtract infinite dates",
    "update scoring.visits set visited_on = '-infinity'": "cannot subtract infinite dates",
    "update scoring.visits set visited_on = '4000-01-01 BC' where visited_on < '2026-06-15'": "integer out of range",
}
CAN = {
    "update scoring.members set joined_date = '20000-01-01'": 3,
    "update scoring.members set joined_date = '4000-01-01 BC'": 3,
    "update scoring.visits set visited_on = 'infinity'": 0,
    "update scoring.visits set visited_on = '20000-01-01'": 0,
    "update scoring.visits set visited_on = '4000-01-01 BC'": 3,
    "update scoring.members set expected_visits_per_week = 0": 3,
}


def with_odd(gyms: Gyms, change: str) -> None:
    gyms.member("odd", 1, 5, 20, coaches=("c1",))
    gyms.conn.execute(change)  # type: ignore[call-overload]
    for n in range(9):
        gyms.member(f"plain {n}", 16, 35, 42, coaches=("c1",))


@pytest.mark.parametrize("batch_members", [3, 50])
@pytest.mark.parametrize("change", CAN_T)
def test_only_the_member_that_can_not_be_scored_fails(
    gyms: Gyms, score: Score, change: str, batch_members: int
) -> None:
    with_odd(gyms, change)
    assert score(max_failed_percent=10, batch_members=batch_members).success
    assert gyms.rows(LEDGER) == [("scoring/commitment_scores", "odd", CAN_T[change])]
    for table in ("commitment_scores", "churn_risk_scores", "coach_actions"):
        assert gyms.rows(f"select count(*) from scoring.{table}") == [(9,)]  # noqa: S608
    assert [(outcome, failed) for _, outcome, failed in gyms.rows(STATE)] == [
        ("complete", 1),
        ("complete", 0),
        ("complete", 0),
    ]


@pytest.mark.parametrize("change", CAN_T)
def test_an_explanation_says_why_such_a_member_can_not_be_scored(gyms: Gyms, change: str) -> None:
    with_odd(gyms, change)
    with pytest.raises(UserError, match="Member 'odd' can't be scored: ") as raised:
        explain(gyms.conn, "odd", DAY, Weights())
    assert CAN_T[change].removesuffix(".") in str(raised.value)


@pytest.mark.parametrize("change", CAN)
def test_dates_beyond_pythons_range_and_a_goal_of_zero_are_scored(
    gyms: Gyms, score: Score, change: str
) -> None:
    with_odd(gyms, change)
    assert score(assets.commitment_scores).success
    assert gyms.rows(LEDGER) == []
    assert gyms.rows("select count(*) from scoring.commitment_scores") == [(10,)]
    assert explain(gyms.conn, "odd", DAY, Weights()).features["visits"] == CAN[change]


def test_a_member_who_never_visited_counts_as_absent_the_longest(gyms: Gyms, score: Score) -> None:
    gyms.member("never", coaches=("c1",), joined=1)
    assert score(day=DAY - timedelta(days=1)).success
    assert gyms.rows("select type, priority, reason_codes from scoring.coach_actions") == [
        ("contact_member", "high", ["high_risk", "never_visited"])
    ]
