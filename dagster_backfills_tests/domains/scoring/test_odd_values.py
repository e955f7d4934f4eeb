"""Values of a member that Postgres can store and Python can't represent: at most this member fails."""

from collections.abc import Iterable
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
GOAL = "Member '{}' can't be scored: expected_visits_per_week must be 0 or more, is"
CAN_T = {
    "members set expected_visits_per_week = 'NaN'": f"{GOAL} not a number.",
    "members set expected_visits_per_week = -0.5": f"{GOAL} -0.5.",
    "members set joined_date = 'infinity'": "cannot subtract infinite dates",
    "members set joined_date = '-infinity'": "cannot subtract infinite dates",
    "visits set visited_on = '-infinity'": "cannot subtract infinite dates",
    "visits set visited_on = case when visited_on < '2026-06-15' then '4000-01-01 BC' else visited_on end": (
        "integer out of range"
    ),
}
CAN = {
    "members set joined_date = '20000-01-01'": 3,
    "members set joined_date = '4000-01-01 BC'": 3,
    "visits set visited_on = 'infinity'": 0,
    "visits set visited_on = '20000-01-01'": 0,
    "visits set visited_on = '4000-01-01 BC'": 3,
    "members set expected_visits_per_week = 0": 3,
}
PLAIN = 9


def with_odd(gyms: Gyms, changes: Iterable[str]) -> dict[str, str]:
    """A member for each change, which are returned with it, and some without."""
    odd = {f"odd {n}": change for n, change in enumerate(changes)}
    for member, change in odd.items():
        gyms.member(member, 1, 5, 20, coaches=("c1",))
        key = "id" if change.startswith("members") else "member_id"
        gyms.conn.execute(f"update scoring.{change} where {key} = %s", [member])  # type: ignore[call-overload]
    for n in range(PLAIN):
        gyms.member(f"plain {n}", 16, 35, 42, coaches=("c1",))
    return odd


@pytest.mark.parametrize("batch_members", [3, 50])
def test_only_the_members_that_can_not_be_scored_fail(gyms: Gyms, score: Score, batch_members: int) -> None:
    odd = with_odd(gyms, CAN_T)
    assert score(max_failed_percent=50, batch_members=batch_members).success
    assert sorted(gyms.rows(LEDGER)) == [
        ("scoring/commitment_scores", member, CAN_T[change].format(member)) for member, change in odd.items()
    ]
    for table in ("commitment_scores", "churn_risk_scores", "coach_actions"):
        assert gyms.rows(f"select count(*) from scoring.{table}") == [(PLAIN,)]  # noqa: S608
    assert [(outcome, failed) for _, outcome, failed in gyms.rows(STATE)] == [
        ("complete", len(odd)),
        ("complete", 0),
        ("complete", 0),
    ]


def test_an_explanation_says_why_such_a_member_can_not_be_scored(gyms: Gyms) -> None:
    for member, change in with_odd(gyms, CAN_T).items():
        with pytest.raises(UserError, match=f"Member '{member}' can't be scored: ") as raised:
            explain(gyms.conn, member, DAY, Weights())
        assert CAN_T[change].format(member).removesuffix(".") in str(raised.value)


def test_dates_beyond_pythons_range_and_a_goal_of_zero_are_scored(gyms: Gyms, score: Score) -> None:
    odd = with_odd(gyms, CAN)
    assert score(assets.commitment_scores).success
    assert gyms.rows(LEDGER) == []
    assert gyms.rows("select count(*) from scoring.commitment_scores") == [(PLAIN + len(odd),)]
    visits = {member: explain(gyms.conn, member, DAY, Weights()).features["visits"] for member in odd}
    assert visits == {member: CAN[change] for member, change in odd.items()}


def test_a_member_who_never_visited_counts_as_absent_the_longest(gyms: Gyms, score: Score) -> None:
    gyms.member("never", coaches=("c1",), joined=1)
    assert score(day=DAY - timedelta(days=1)).success
    assert gyms.rows("select type, priority, reason_codes from scoring.coach_actions") == [
        ("contact_member", "high", ["high_risk", "never_visited"])
    ]
