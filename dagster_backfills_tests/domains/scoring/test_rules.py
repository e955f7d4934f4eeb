"""The vectorized rules compared with the scalar reference, and both with examples computed by hand."""

from datetime import timedelta
from fractions import Fraction

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_backfills.domains.scoring import rules, schemas
from dagster_backfills.domains.scoring.action_rules import RULES, coach_actions, describe
from dagster_backfills.domains.scoring.weights import Weights
from dagster_backfills_tests.domains.scoring import reference
from dagster_backfills_tests.domains.scoring.histories import DAY, features, members


def plain(row: dict[str, object]) -> dict[str, object]:
    return {k: None if pd.isna(v) else v.item() if hasattr(v, "item") else v for k, v in row.items()}  # type: ignore[call-overload]


def scored(population: list[reference.Member], weights: Weights = Weights()) -> list[dict[str, object]]:  # noqa: B008
    frame = rules.commitment_scores(features(population), weights)
    return [plain(row) for row in frame.drop(columns=["member_id", "weights_version"]).to_dict("records")]


# Scoring a frame takes as long for one member as for thirty.
@settings(max_examples=40, deadline=None)
@given(st.lists(members(), min_size=1, max_size=30))
def test_vectorized_commitment_scores_equal_the_reference(population: list[reference.Member]) -> None:
    assert scored(population) == [reference.commitment(member, DAY) for member in population]


@settings(max_examples=50, deadline=None)
@given(st.lists(members(), min_size=1, max_size=12), st.tuples(*[st.integers(0, 3333)] * 3))
def test_other_weights_equal_the_reference_too(
    population: list[reference.Member], parts: tuple[int, int, int]
) -> None:
    weights = Weights(*parts, 10_000 - sum(parts))
    exact = tuple(Fraction(p, 10_000) for p in weights.parts)
    assert scored(population, weights) == [reference.commitment(m, DAY, exact) for m in population]


def test_churn_risk_equals_the_reference_for_every_score_and_absence() -> None:
    cases = [(score, last) for score in range(101) for last in [None, *range(0, 450)]]
    frame = pd.DataFrame(cases, columns=["commitment_score", "days_since_last_visit"])
    frame["days_since_last_visit"] = frame["days_since_last_visit"].astype("Int64")
    frame["member_id"] = "m"
    result = rules.churn_risk_scores(frame)
    assert list(zip(result["level"], result["score"], strict=True)) == [
        reference.churn(*case) for case in cases
    ]


def test_actions_equal_the_reference_for_every_level_score_and_absence() -> None:
    levels = ("none", "low", "medium", "high")
    cases = [(lv, score, last) for lv in levels for score in range(101) for last in [None, *range(0, 40)]]
    frame = pd.DataFrame(cases, columns=["churn_risk_level", "commitment_score", "days_since_last_visit"])
    frame["days_since_last_visit"] = frame["days_since_last_visit"].astype("Int64")
    frame["member_id"] = [f"m{i}" for i in range(len(cases))]
    frame["coach_id"], frame["churn_risk_score"] = "c", 50
    result = coach_actions(frame)
    got = {m: (t, p) for m, t, p in zip(result["member_id"], result["type"], result["priority"], strict=True)}
    expected = {f"m{i}": reference.action(*case) for i, case in enumerate(cases)}
    assert got == {member: action for member, action in expected.items() if action}
    assert {t for t, _ in got.values()} == {rule.type for rule in RULES}


def ago(*days: int, joined: int = 400, per_week: Fraction | None = None) -> reference.Member:
    return reference.Member(DAY - timedelta(days=joined), [DAY - timedelta(days=d) for d in days], per_week)


# score, attendance, missed, gaps, velocity score, decay, velocity per week, last; computed by hand.
WORKED = {
    "never visited": (ago(), (0, 0, 0, 0, 0, 0.0, 0.0, None)),
    # No v60: 15·1. 2 a week expected: 100·1·7/60 = 11.67. Single, today: 55. Under 4 visits: 50.
    # 15·0.35 + 12·0.25 + 55·0.25 + 50·0.15 = 5.25 + 3 + 13.75 + 7.5 = 29.5 → half up.
    "one visit today": (ago(0), (30, 15, 12, 55, 50, 1.0, 0.0, 0)),
    # v30 = 0; gap score 2 − ⌊40/30⌋ = 1. (0.25 + 7.5)·0.30 = 2.325; decay 1 − 0.018·39 = 0.298 → 0.30.
    # v60 = 1, so 100·0/1 = 0.
    "one visit forty days ago": (ago(40), (2, 0, 0, 1, 50, 0.3, 0.0, 40)),
    # Two on one day: 15·2 = 30; span 0 → one week → 2 a week: 100·2·7/60 = 23.33; gap 0: 100; 50.
    # 10.5 + 5.75 + 25 + 7.5 = 48.75.
    "two visits today": (ago(0, 0), (49, 30, 23, 100, 50, 1.0, 0.0, 0)),
    # Only the visit on the day counts, tomorrow's does not.
    "a visit in the future": (ago(0, -1), (30, 15, 12, 55, 50, 1.0, 0.0, 0)),
    # Joined after its visits, so new: ⌊0/2⌋ = 0, second = visits on the day = 0, first = 1: 0.
    # missed 12, single 4 days ago: 35, 50. (3 + 8.75 + 7.5)·0.95 = 18.2875; decay 1 − 0.054 = 0.946.
    "joined after its visit": (ago(4, joined=-2), (18, 0, 12, 35, 50, 0.95, 0.0, 4)),
    # Every 2 days for 100 days: v30 = 15, v60 = 15, v90 = 15. Attendance 100. History: 51 visits over 100
    # days: expected 30·51/100 = 15.3: 98.04. Gaps 100, velocity 0 → 50. 35 + 24.5 + 25 + 7.5 = 92.
    "every second day": (ago(*range(0, 101, 2)), (92, 100, 98, 100, 50, 1.0, 0.0, 0)),
    # Weekly, 15 visits: v30 = 5 (0 7 14 21 28), v60 = 4, v90 = 4 (63 70 77 84). 100 + 10 → 100. Own 1.4 a
    # week = 6 in 30 days: 83.33. Average gap 7: 75. Velocity (5 − 4) / 2 = 0.5: 55; 0.5/4.3 = 0.116.
    # 35 + 20.75 + 18.75 + 8.25 = 82.75.
    "weekly with its own goal": (
        ago(*range(0, 99, 7), per_week=Fraction(7, 5)),
        (83, 100, 83, 75, 55, 1.0, 0.1, 0),
    ),
    # v30 = 1 (day 16), v60 = 4, n = 5: 25. History: 5 over 40 days: 30·5/40 = 3.75: 26.67, halved 13.33.
    # Average gap 40/4 = 10: 60; widest 19 > 14: −15; last 16: −25: 20. Velocity −3: 20; −3/4.3 = −0.698.
    # (8.75 + 3.25 + 5 + 3)·0.73 = 14.6; decay 1 − 0.018·15 = 0.73.
    "falling off": (ago(16, 35, 42, 49, 56), (15, 25, 13, 20, 20, 0.73, -0.7, 16)),
    # New, joined 20: second from 10 days ago on: 1, first: 3: 33.33. v30 = 4; 4 over 15 days: 8 expected: 50.
    # Average gap 5: 90. Velocity 4 − 0 = 4: 90; 0.93. (11.55 + 12.5 + 22.5 + 13.5)·1 = 60.05.
    "new and slowing": (ago(1, 12, 14, 16, joined=20), (60, 33, 50, 90, 90, 1.0, 0.9, 1)),
}


@pytest.mark.parametrize("name", WORKED)
def test_worked_examples_hold_for_rules_and_reference(name: str) -> None:
    member, expected = WORKED[name]
    columns = (
        "score",
        "attendance_decay",
        "missed_sessions",
        "time_gaps",
        "decline_velocity",
        "time_decay",
        "velocity_per_week",
        "days_since_last_visit",
    )
    assert tuple(scored([member])[0][c] for c in columns) == expected
    assert tuple(reference.commitment(member, DAY)[c] for c in columns) == expected


def test_flags_of_worked_examples() -> None:
    def raised(member: reference.Member) -> set[str]:
        row = scored([member])[0]
        return {flag for flag in rules.FLAGS if row[flag]}

    assert raised(ago()) == {"no_recent_visits"}
    assert raised(ago(joined=10)) == {"no_recent_visits", "new_member_low_attendance"}
    assert raised(ago(16, 35, 42, 49, 56)) == {"no_recent_visits", "rapid_decline", "declining_frequency"}
    # Gaps 1, 1, 22: mean 8, variance (49 + 49 + 196) / 3 = 98.
    assert raised(ago(0, 1, 2, 24)) == {"large_gap", "inconsistent_pattern"}


@pytest.mark.parametrize(
    ("commitment", "last", "expected"),
    [
        (80, 100, ("none", 72)),  # 20 · 1.2^7 = 71.66
        (79, 0, ("low", 21)),
        (61, 14, ("low", 47)),  # 39 · 1.2 = 46.8
        (60, 13, ("medium", 40)),
        (21, 28, ("medium", 100)),  # 79 · 1.44 = 113.76
        (20, 13, ("high", 80)),
        (100, 9999, ("none", 0)),
        (0, None, ("high", 85)),
    ],
)
def test_worked_churn_risks(commitment: int, last: int | None, expected: tuple[str, int]) -> None:
    frame = pd.DataFrame({"member_id": ["m"], "commitment_score": [commitment]})
    frame["days_since_last_visit"] = pd.array([last], dtype="Int64")
    row = rules.churn_risk_scores(frame).iloc[0]
    assert (row["level"], row["score"]) == expected == reference.churn(commitment, last)


@pytest.mark.parametrize(
    ("score", "band"),
    [(0, "low"), (30, "low"), (31, "moderate"), (60, "moderate"), (61, "good"), (80, "good"), (81, "high")],
)
def test_bands_at_their_edges(score: int, band: str) -> None:
    import numpy as np

    assert rules.band(np.array([score]))[0] == band == reference.band(score)


def test_an_action_quotes_its_numbers_and_carries_reason_codes() -> None:
    frame = pd.DataFrame(
        {
            "member_id": ["a", "b", "c"],
            "coach_id": ["x", "x", "y"],
            "commitment_score": [12, 0, 45],
            "churn_risk_score": [100, 85, 66],
            "churn_risk_level": ["high", "high", "medium"],
            "days_since_last_visit": pd.array([23, None, 1], dtype="Int64"),
        }
    )
    result = coach_actions(frame).set_index("member_id")
    assert result.loc["a", "description"] == (
        "Last visit 23 days ago; commitment 12 of 100, churn risk 100 of 100 (high)."
    )
    assert (
        result.loc["b", "description"]
        == "Has never visited; commitment 0 of 100, churn risk 85 of 100 (high)."
    )
    assert result.loc["c", "description"].startswith("Last visit 1 day ago;")
    assert describe(1, 2, "low", 0).startswith("Last visit on the day itself;")
    assert list(result["reason_codes"]) == [
        "{high_risk,no_visit_in_14_days}",
        "{high_risk,never_visited}",
        "{medium_risk,commitment_below_50}",
    ]


def test_a_negative_or_nan_goal_is_reported_as_a_problem() -> None:
    frame = features([ago(1), ago(1, per_week=Fraction(2)), ago(1), ago(1)])
    frame.loc[[0, 2, 3], "expected_hundredths"] = [0, -150, rules.NOT_A_NUMBER]
    assert dict(rules.problems(frame)) == {
        "m2": "expected_visits_per_week must be 0 or more, is -1.5",
        "m3": "expected_visits_per_week must be 0 or more, is not a number",
    }
    with pytest.raises(ValueError, match=r"Member 'm2' can't be scored: .* is -1\.5\."):
        rules.commitment_scores(frame)


def test_a_goal_of_zero_counts_as_no_goal() -> None:
    frame = features([ago(*days) for days in ([1, 9, 30], [40], [])] * 2)
    frame.loc[:2, "expected_hundredths"] = 0
    scores = rules.commitment_scores(frame).drop(columns="member_id")
    assert scores[:3].to_dict("records") == scores[3:].to_dict("records")


def test_empty_frames_give_empty_results() -> None:
    none = features([ago(0)]).iloc[:0]
    assert rules.commitment_scores(none, Weights()).empty
    churn = rules.churn_risk_scores(
        pd.DataFrame(
            {
                "member_id": pd.array([], dtype="str"),
                "commitment_score": pd.array([], dtype="int64"),
                "days_since_last_visit": pd.array([], dtype="Int64"),
            }
        )
    )
    assert churn.empty
    pairs = churn.assign(coach_id="c", churn_risk_level="low", churn_risk_score=0)
    assert schemas.validated("scoring/coach_actions", coach_actions(pairs)).empty


def test_weights_must_sum_to_one() -> None:
    assert Weights.parse("0.35,0.25,0.25,0.15") == Weights()
    assert Weights.parse("0.355, 0.245, 0.25, 0.15").version == "35.5-24.5-25-15"
    with pytest.raises(ValueError, match=r"sum to 1, are 0\.4, 0\.25, 0\.25, 0\.15"):
        Weights.parse("0.4,0.25,0.25,0.15")
    with pytest.raises(ValueError, match="0 or more"):
        Weights.parse("-0.1,0.6,0.25,0.25")
    for text in ("", "1", "a,b,c,d", "0.35,0.25,0.25", "0.33333,0.16667,0.25,0.25", "nan,0,0,1", "inf,0,0,1"):
        with pytest.raises(ValueError, match="four comma-separated decimals"):
            Weights.parse(text)
