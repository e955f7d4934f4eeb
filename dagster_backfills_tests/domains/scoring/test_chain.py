"""The gates as pure judgement: what waits, what is held and why, what is launched, under a clock that is given."""

from datetime import UTC, date, datetime, timedelta

import pytest

from dagster_backfills.domains.scoring.chain import (
    ACTIONS_STEP,
    CHURN_STEP,
    DayState,
    Decision,
    Outcome,
    Tries,
    after_pause,
    due_days,
    judge,
    missed,
)
from dagster_backfills.domains.scoring.days import Coverage
from dagster_backfills.domains.scoring.tables import ACTIONS, CHURN, COMMITMENT

DAY = date(2026, 6, 30)


def at(hour: int, minute: int = 0, day: int = 1) -> datetime:
    return datetime(2026, 7, day, hour, minute, tzinfo=UTC)


TWO = at(2)


def state(
    asset: str, outcome: Outcome = "complete", *, day: date = DAY, began: datetime = TWO, run: str = "run-1",
    reason: str | None = None,
) -> dict[tuple[str, date], DayState]:  # fmt: skip
    finished = None if outcome == "running" else began + timedelta(minutes=5)
    return {(asset, day): DayState(asset, day, run, outcome, reason, 10, 10, 0, began, finished)}


def never_ended(run_id: str) -> str | None:
    return None


def test_churn_risk_waits_for_a_day_that_no_run_has_touched() -> None:
    verdict = judge(CHURN_STEP, DAY, at(5), {}, never_ended)
    assert verdict.run_key is None
    assert verdict.reason == "waits for scoring/commitment_scores, which has not run for this day"


def test_churn_risk_waits_while_the_commitment_run_works() -> None:
    verdict = judge(CHURN_STEP, DAY, at(5), state(COMMITMENT.asset, "running"), never_ended)
    assert verdict.reason == "waits for scoring/commitment_scores, which run run-1 is working"


@pytest.mark.parametrize(
    ("step", "upstream", "hour"), [(CHURN_STEP, COMMITMENT.asset, 3), (ACTIONS_STEP, CHURN.asset, 4)]
)
def test_a_step_waits_for_its_hour_and_then_starts(step: object, upstream: str, hour: int) -> None:
    states = state(upstream)
    early = judge(step, DAY, at(hour - 1, 59), states, never_ended)  # type: ignore[arg-type]
    assert (early.run_key, early.reason) == (None, f"waits for {hour:02}:00 UTC of 2026-07-01")
    on_time = judge(step, DAY, at(hour), states, never_ended)  # type: ignore[arg-type]
    assert on_time.run_key is not None


@pytest.mark.parametrize("outcome", ["partial", "failed"])
def test_a_partial_or_failed_upstream_holds_the_chain_and_says_why(outcome: Outcome) -> None:
    states = state(COMMITMENT.asset, outcome, reason="12 of 10 members failed")
    verdict = judge(CHURN_STEP, DAY, at(5), states, never_ended)
    assert verdict.run_key is None
    assert (
        verdict.reason == f"held: scoring/commitment_scores is {outcome} (12 of 10 members failed), run run-1"
    )


def test_an_upstream_whose_run_died_holds_the_chain_and_says_so() -> None:
    verdict = judge(CHURN_STEP, DAY, at(5), state(COMMITMENT.asset, "running"), lambda run: "FAILURE")
    assert verdict.reason == "held: scoring/commitment_scores was not finished, run run-1 ended as FAILURE"


def test_a_day_that_is_done_is_left_alone_until_its_upstream_is_done_again() -> None:
    states = state(COMMITMENT.asset) | state(CHURN.asset, began=at(3))
    assert judge(CHURN_STEP, DAY, at(5), states, never_ended).run_key is None
    repaired = state(COMMITMENT.asset, began=at(6), run="run-2") | state(CHURN.asset, began=at(3))
    assert (
        judge(CHURN_STEP, DAY, at(7), repaired, never_ended).run_key
        == "scoring/churn_risk_scores:2026-06-30:run-2"
    )


def test_a_step_that_failed_itself_is_not_started_over_and_over() -> None:
    states = state(COMMITMENT.asset) | state(CHURN.asset, "failed", began=at(3), reason="boom")
    verdict = judge(CHURN_STEP, DAY, at(5), states, never_ended)
    assert verdict.run_key is None
    assert "is failed (boom)" in (verdict.reason or "")


def test_a_step_that_is_being_worked_is_not_started_again() -> None:
    states = state(CHURN.asset) | state(ACTIONS.asset, "running", began=at(4))
    assert judge(ACTIONS_STEP, DAY, at(5), states, never_ended).run_key is None


def test_missed_days_are_launched_oldest_first_and_each_under_one_key() -> None:
    days = due_days(DAY, 4)
    states = state(COMMITMENT.asset, day=days[0])
    verdicts, waits = missed(days, states, at(2, 1), False, never_ended)
    assert [v.day for v in verdicts] == days[1:]
    assert len({v.run_key for v in verdicts}) == 3
    assert waits is None


def test_the_newest_day_is_not_missed_before_two() -> None:
    days = due_days(DAY, 3)
    states = state(COMMITMENT.asset, day=days[0]) | state(COMMITMENT.asset, day=days[1])
    assert missed(days, states, at(1, 59), True, never_ended) == (
        [],
        "2026-06-30: waits for 02:00 UTC of 2026-07-01",
    )
    assert [v.day for v in missed(days, states, at(2, 1), True, never_ended)[0]] == [DAY]


def test_a_new_installation_starts_with_the_newest_day_and_not_with_a_week() -> None:
    assert [v.day for v in missed(due_days(DAY, 7), {}, at(3), False, never_ended)[0]] == [DAY]
    assert len(missed(due_days(DAY, 7), {}, at(3), True, never_ended)[0]) == 7


def test_a_day_that_failed_is_not_missed() -> None:
    verdicts, _ = missed([DAY], state(COMMITMENT.asset, "failed"), at(3), True, never_ended)
    assert verdicts == []


def test_a_day_whose_run_was_killed_is_launched_again_and_one_that_was_cancelled_is_not() -> None:
    states = state(COMMITMENT.asset, "running")
    (verdict,), _ = missed([DAY], states, at(3), True, lambda run: "FAILURE")
    assert verdict.run_key == "scoring/commitment_scores:2026-06-30:run-1"
    assert missed([DAY], states, at(3), True, lambda run: "CANCELED")[0] == []
    states = state(COMMITMENT.asset) | state(CHURN.asset, "running", began=at(3))
    assert judge(CHURN_STEP, DAY, at(4), states, lambda run: "FAILURE").run_key is not None
    assert judge(CHURN_STEP, DAY, at(4), states, lambda run: "CANCELED").run_key is None
    assert judge(CHURN_STEP, DAY, at(4), states, never_ended).run_key is None


def test_a_launch_waits_longer_after_each_run_that_died_and_has_a_key_of_its_own() -> None:
    launch, died = Decision(DAY, run_key="key"), Tries(failures=3, last_failed="run-3", ended_at=at(3))
    assert after_pause(launch, Tries(), at(3)) == launch
    waiting = after_pause(launch, died, at(3, 1))
    assert (waiting.run_key, waiting.reason) == (
        None,
        "the last 3 runs died: the next try is 0:02:00 after the last",
    )
    assert after_pause(launch, died, at(3, 2)).run_key == "key:after run-3"
    assert after_pause(launch, Tries(on_its_way="run-4"), at(3)).run_key is None


def test_a_clock_that_was_ahead_when_the_last_run_died_delays_nothing() -> None:
    tomorrow = Tries(failures=3, last_failed="run-3", ended_at=at(3, day=2))
    assert after_pause(Decision(DAY, run_key="key"), tomorrow, at(3)).run_key is not None


@pytest.mark.parametrize(
    ("coverage", "outcome", "reason"),
    [
        (Coverage(1000, 1000, 0), "complete", None),
        (Coverage(1000, 990, 10), "complete", None),
        (Coverage(1000, 989, 11), "partial", "11 of 1,000 members failed, more than 1 %"),
        (Coverage(1000, 980, 10), "partial", "10 of 1,000 members have neither a row nor a recorded failure"),
        (Coverage(0, 0, 0), "complete", None),
    ],
)
def test_a_day_is_complete_with_few_recorded_failures_and_partial_with_more(
    coverage: Coverage, outcome: str, reason: str | None
) -> None:
    assert coverage.verdict(1.0, "members") == (outcome, reason)
