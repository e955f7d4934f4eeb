"""The order of the scoring chain, and its gates: which step may start for which day, or the reason why not.

Pure functions: clock, states and run statuses are passed in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

from dagster_backfills.domains.scoring.tables import ACTIONS, CHURN, COMMITMENT

Outcome = Literal["missing", "running", "complete", "partial", "failed"]


@dataclass(frozen=True)
class DayState:
    """State of one asset on one day: a row of `scoring.chain_days`, or `missing` if there is none."""

    asset: str
    day: date
    run_id: str = ""
    outcome: Outcome = "missing"
    reason: str | None = None
    expected: int | None = None
    done: int | None = None
    failed: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    def __str__(self) -> str:
        if self.outcome in ("missing", "running"):
            return self.outcome
        failed = f", {self.failed:,} failed" if self.failed else ""
        return f"{self.outcome}: {self.done:,} of {self.expected:,}{failed}"

    def is_newer_than(self, upstream: "DayState | None") -> bool:
        """Whether it started after the upstream step had finished."""
        if upstream is None:
            return True
        started, finished = self.started_at, upstream.finished_at
        return started is not None and finished is not None and started >= finished


@dataclass(frozen=True)
class ChainStep:
    """A step of the chain. It starts at `opens` (UTC, on the following day) at the earliest, and after `after`."""

    asset: str
    opens: time
    after: str | None

    def opens_at(self, day: date) -> datetime:
        """The earliest start for a day."""
        return datetime.combine(day + timedelta(days=1), self.opens, tzinfo=UTC)


COMMITMENT_STEP = ChainStep(COMMITMENT.asset, time(2), None)
CHURN_STEP = ChainStep(CHURN.asset, time(3), COMMITMENT.asset)
ACTIONS_STEP = ChainStep(ACTIONS.asset, time(4), CHURN.asset)

_AFTER_SCHEDULE = timedelta(minutes=1)  # at 02:00 the schedule launches the run

States = Mapping[tuple[str, date], DayState]
RunStatus = Callable[[str], str | None]  # the final status of a run, None while it is unfinished


@dataclass(frozen=True)
class Decision:
    """Decision for one day: launch a run with `run_key`, or don't, with a reason unless it is done or running."""

    day: date
    run_key: str | None = None
    reason: str | None = None


def decide(step: ChainStep, day: date, now: datetime, states: States, final_status: RunStatus) -> Decision:
    """Decide whether to start a step for a day."""
    own = states.get((step.asset, day))
    upstream = states.get((step.after, day)) if step.after else None
    if own is not None and _is_running(own, final_status):
        return Decision(day)
    if step.after is not None and (reason := _not_ready(step.after, upstream, final_status)):
        return Decision(day, reason=reason)
    current = own if own is not None and own.is_newer_than(upstream) else None
    if current is not None and current.outcome == "complete":
        return Decision(day)
    if now < step.opens_at(day):
        return Decision(day, reason=f"waits for {step.opens:%H:%M} UTC of {day + timedelta(days=1)}")
    if own is not None and was_killed(own, final_status):
        return Decision(day, run_key=f"{step.asset}:{day}:{own.run_id}")
    if current is not None:
        return Decision(
            day, reason=f"{step.asset} {_result(current, final_status)}: fix the cause, then run it again"
        )
    return Decision(day, run_key=f"{step.asset}:{day}:{upstream.run_id if upstream else 'first'}")


def was_killed(state: DayState, final_status: RunStatus) -> bool:
    """Whether the run failed without recording a result, so that it should be retried: it was killed or timed out."""
    return state.outcome == "running" and final_status(state.run_id) == "FAILURE"


def _is_running(state: DayState, final_status: RunStatus) -> bool:
    return state.outcome == "running" and final_status(state.run_id) is None


def _not_ready(asset: str, state: DayState | None, final_status: RunStatus) -> str | None:
    """The reason why the step after `asset` may not start, or None."""
    if state is None:
        return f"waits for {asset}, which has not run for this day"
    if state.outcome == "complete":
        return None
    if _is_running(state, final_status):
        return f"waits for {asset}, which is running in run {state.run_id[:8]}"
    return f"held: {asset} {_result(state, final_status)}"


def _result(state: DayState, final_status: RunStatus) -> str:
    if state.outcome == "running":
        return f"did not finish, run {state.run_id[:8]} ended as {final_status(state.run_id)}"
    return f"is {state.outcome} ({state.reason or 'no reason recorded'}), run {state.run_id[:8]}"


def newest_day(today: date) -> date:
    """The newest day that can be scored."""
    return today - timedelta(days=1)


def due_days(newest: date, days: int) -> list[date]:
    """The last `days` days up to `newest`, oldest first."""
    return [newest - timedelta(days=back) for back in reversed(range(days))]


def missed(
    days: Sequence[date], states: States, now: datetime, has_history: bool, final_status: RunStatus
) -> tuple[list[Decision], str | None]:
    """Launches of commitment scores for days that have no run or whose run was killed; or a reason to wait.

    `has_history`: whether any earlier day was scored. If not, days before the first scored day are not missed.
    """
    started = {day: states[COMMITMENT.asset, day] for day in days if (COMMITMENT.asset, day) in states}
    first = days[0] if has_history else min(started, default=days[-1])
    missing = [
        day for day in days if day >= first and (day not in started or was_killed(started[day], final_status))
    ]
    due = [day for day in missing if now >= COMMITMENT_STEP.opens_at(day) + _AFTER_SCHEDULE]
    if due:
        keys = {day: started[day].run_id if day in started else "missed" for day in due}
        return [Decision(day, run_key=f"{COMMITMENT.asset}:{day}:{key}") for day, key in keys.items()], None
    if missing:
        return [], f"{missing[0]}: waits for 02:00 UTC of {missing[0] + timedelta(days=1)}"
    return [], None
