"""The chain's decisions: which step waits, is held or is launched, at a given time."""

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import dagster as dg
import pytest

from dagster_backfills.defs.scoring.sensors import defer
from dagster_backfills.domains.scoring.chain import (
    ACTIONS_STEP,
    CHURN_STEP,
    DayState,
    Decision,
    Outcome,
    decide,
    due_days,
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


def test_churn_risk_waits_for_a_day_without_a_commitment_run() -> None:
    decision = decide(CHURN_STEP, DAY, at(5), {}, never_ended)
    assert decision.run_key is None
    assert decision.reason == "waits for scoring/commitment_scores, which has not run for this day"


def test_churn_risk_waits_while_the_commitment_run_is_running() -> None:
    decision = decide(CHURN_STEP, DAY, at(5), state(COMMITMENT.asset, "running"), never_ended)
    assert decision.reason == "waits for scoring/commitment_scores, which is running in run run-1"


@pytest.mark.parametrize(
    ("step", "upstream", "hour"), [(CHURN_STEP, COMMITMENT.asset, 3), (ACTIONS_STEP, CHURN.asset, 4)]
)
def test_a_step_waits_for_its_hour_and_then_starts(step: object, upstream: str, hour: int) -> None:
    states = state(upstream)
    early = decide(step, DAY, at(hour - 1, 59), states, never_ended)  # type: ignore[arg-type]
    assert (early.run_key, early.reason) == (None, f"waits for {hour:02}:00 UTC of 2026-07-01")
    on_time = decide(step, DAY, at(hour), states, never_ended)  # type: ignore[arg-type]
    assert on_time.run_key is not None


@pytest.mark.parametrize("outcome", ["partial", "failed"])
def test_a_partial_or_failed_upstream_holds_the_chain_and_says_why(outcome: Outcome) -> None:
    states = state(COMMITMENT.asset, outcome, reason="12 of 10 members failed")
    decision = decide(CHURN_STEP, DAY, at(5), states, never_ended)
    assert decision.run_key is None
    assert (
        decision.reason
        == f"held: scoring/commitment_scores is {outcome} (12 of 10 members failed), run run-1"
    )


def test_an_upstream_whose_run_died_holds_the_chain_and_says_so() -> None:
    decision = decide(CHURN_STEP, DAY, at(5), state(COMMITMENT.asset, "running"), lambda run: "FAILURE")
    assert decision.reason == "held: scoring/commitment_scores did not finish, run run-1 ended as FAILURE"


def test_a_completed_day_is_not_started_again_until_its_upstream_is_recomputed() -> None:
    states = state(COMMITMENT.asset) | state(CHURN.asset, began=at(3))
    assert decide(CHURN_STEP, DAY, at(5), states, never_ended).run_key is None
    repaired = state(COMMITMENT.asset, began=at(6), run="run-2") | state(CHURN.asset, began=at(3))
    assert (
        decide(CHURN_STEP, DAY, at(7), repaired, never_ended).run_key
        == "scoring/churn_risk_scores:2026-06-30:run-2"
    )


def test_a_failed_step_is_not_started_again() -> None:
    states = state(COMMITMENT.asset) | state(CHURN.asset, "failed", began=at(3), reason="boom")
    decision = decide(CHURN_STEP, DAY, at(5), states, never_ended)
    assert decision.run_key is None
    assert "is failed (boom)" in (decision.reason or "")


def test_a_running_step_is_not_started_again() -> None:
    states = state(CHURN.asset) | state(ACTIONS.asset, "running", began=at(4))
    assert decide(ACTIONS_STEP, DAY, at(5), states, never_ended).run_key is None


def test_missed_days_are_launched_oldest_first_each_with_one_run_key() -> None:
    days = due_days(DAY, 4)
    states = state(COMMITMENT.asset, day=days[0])
    decisions, waits = missed(days, states, at(2, 1), False, never_ended)
    assert [v.day for v in decisions] == days[1:]
    assert len({v.run_key for v in decisions}) == 3
    assert waits is None


def test_the_newest_day_is_not_missed_before_two_o_clock() -> None:
    days = due_days(DAY, 3)
    states = state(COMMITMENT.asset, day=days[0]) | state(COMMITMENT.asset, day=days[1])
    assert missed(days, states, at(1, 59), True, never_ended) == (
        [],
        "2026-06-30: waits for 02:00 UTC of 2026-07-01",
    )
    assert [v.day for v in missed(days, states, at(2, 1), True, never_ended)[0]] == [DAY]


def test_a_new_installation_starts_with_the_newest_day_only() -> None:
    assert [v.day for v in missed(due_days(DAY, 7), {}, at(3), False, never_ended)[0]] == [DAY]
    assert len(missed(due_days(DAY, 7), {}, at(3), True, never_ended)[0]) == 7


def test_a_day_that_failed_is_not_missed() -> None:
    decisions, _ = missed([DAY], state(COMMITMENT.asset, "failed"), at(3), True, never_ended)
    assert decisions == []


def test_a_day_whose_run_was_killed_is_launched_again_and_one_that_was_cancelled_is_not() -> None:
    states = state(COMMITMENT.asset, "running")
    (decision,), _ = missed([DAY], states, at(3), True, lambda run: "FAILURE")
    assert decision.run_key == "scoring/commitment_scores:2026-06-30:run-1"
    assert missed([DAY], states, at(3), True, lambda run: "CANCELED")[0] == []
    states = state(COMMITMENT.asset) | state(CHURN.asset, "running", began=at(3))
    assert decide(CHURN_STEP, DAY, at(4), states, lambda run: "FAILURE").run_key is not None
    assert decide(CHURN_STEP, DAY, at(4), states, lambda run: "CANCELED").run_key is None
    assert decide(CHURN_STEP, DAY, at(4), states, never_ended).run_key is None


class RunRecords:
    """An instance with runs of one day: their statuses, newest first, all updated at the same time."""

    def __init__(self, *statuses: str, updated: datetime = TWO) -> None:
        runs = [
            SimpleNamespace(status=dg.DagsterRunStatus[status], run_id=f"run-{n}")
            for n, status in zip(range(len(statuses), 0, -1), statuses, strict=True)
        ]
        self.records = [SimpleNamespace(dagster_run=run, update_timestamp=updated) for run in runs]

    def get_run_records(self, filters: dg.RunsFilter, limit: int) -> list[SimpleNamespace]:
        assert (filters.job_name, filters.tags) == ("job", {"dagster/partition": "2026-06-30"})
        return self.records[:limit]


def deferred(runs: RunRecords, now: datetime) -> Decision:
    return defer(Decision(DAY, run_key="key"), runs, "job", now)  # type: ignore[arg-type]


def test_a_launch_is_deferred_longer_after_each_failed_run_and_has_its_own_run_key() -> None:
    assert deferred(RunRecords(), at(3)).run_key == "key"
    failed = RunRecords("FAILURE", "FAILURE", "FAILURE", "SUCCESS", updated=at(3))
    waiting = deferred(failed, at(3, 1))
    assert (waiting.run_key, waiting.reason) == (
        None,
        "the last 3 runs failed: the next starts 0:02:00 after the last",
    )
    assert deferred(failed, at(3, 2)).run_key == "key:after run-4"
    unfinished = deferred(RunRecords("QUEUED", "FAILURE"), at(3))
    assert (unfinished.run_key, unfinished.reason) == (None, "waits for run run-2, which is unfinished")


def test_a_last_failure_dated_in_the_future_does_not_defer_a_launch() -> None:
    assert deferred(RunRecords("FAILURE", updated=at(3, day=2)), at(3)).run_key is not None


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
    assert coverage.outcome(1.0, "members") == (outcome, reason)
