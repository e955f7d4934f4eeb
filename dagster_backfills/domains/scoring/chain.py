"""The chain's order and its gates: what may start now, and in words why not. Pure: clock and database are given."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

from dagster_backfills.domains.scoring.tables import ACTIONS, CHURN, COMMITMENT
from dagster_backfills.engine.back_off import back_off, is_resting

Outcome = Literal["missing", "running", "complete", "partial", "failed"]


@dataclass(frozen=True)
class DayState:
    """One row of `scoring.chain_days`: how one asset stands on one day; `missing` where there is none."""

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

    def rests_on(self, upstream: "DayState | None") -> bool:
        """Whether it began when the link before had finished as it stands now."""
        if upstream is None:
            return True
        begun, finished = self.started_at, upstream.finished_at
        return begun is not None and finished is not None and begun >= finished


@dataclass(frozen=True)
class ChainStep:
    """A link of the chain: not before `opens` (UTC, on the morning after the day), and after `after`."""

    asset: str
    opens: time
    after: str | None

    def opens_at(self, day: date) -> datetime:
        """The moment from which the day may be worked."""
        return datetime.combine(day + timedelta(days=1), self.opens, tzinfo=UTC)


COMMITMENT_STEP = ChainStep(COMMITMENT.asset, time(2), None)
CHURN_STEP = ChainStep(CHURN.asset, time(3), COMMITMENT.asset)
ACTIONS_STEP = ChainStep(ACTIONS.asset, time(4), CHURN.asset)

_SCHEDULE_IS_FIRST = timedelta(minutes=1)

States = Mapping[tuple[str, date], DayState]
RunStatus = Callable[[str], str | None]  # of a run that has ended: how; None while it goes on


@dataclass(frozen=True)
class Decision:
    """What is to be done for one day: `launch` with a run key, or a reason not to (None: nothing to say)."""

    day: date
    run_key: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Tries:
    """A step's runs for a day: one that has not ended, and how many of the newest failed, one after the other."""

    on_its_way: str | None = None
    failures: int = 0
    last_failed: str | None = None
    ended_at: datetime | None = None


def judge(step: ChainStep, day: date, now: datetime, states: States, ended: RunStatus) -> Decision:
    """Whether a step may start for a day."""
    own = states.get((step.asset, day))
    upstream = states.get((step.after, day)) if step.after else None
    if own is not None and _alive(own, ended):
        return Decision(day)
    if step.after is not None and (held := _held(step.after, upstream, ended)):
        return Decision(day, reason=held)
    settled = own if own is not None and own.rests_on(upstream) else None
    if settled is not None and settled.outcome == "complete":
        return Decision(day)
    if now < step.opens_at(day):
        return Decision(day, reason=f"waits for {step.opens:%H:%M} UTC of {day + timedelta(days=1)}")
    if own is not None and died(own, ended):
        return Decision(day, run_key=f"{step.asset}:{day}:{own.run_id}")
    if settled is not None:
        again = f"{step.asset} {_ended(settled, ended)}: run it again once the cause is mended"
        return Decision(day, reason=again)
    return Decision(day, run_key=f"{step.asset}:{day}:{upstream.run_id if upstream else 'first'}")


def died(state: DayState, ended: RunStatus) -> bool:
    """Whether the run was killed, or ended after its time: it could not say how the day went, so it is tried again."""
    return state.outcome == "running" and ended(state.run_id) == "FAILURE"


def after_pause(verdict: Decision, tries: Tries, now: datetime) -> Decision:
    """A launch, put off while a run is on its way, and for a growing pause after runs that failed."""
    if tries.on_its_way is not None:
        return Decision(verdict.day, reason=f"waits for run {tries.on_its_way[:8]}, which is on its way")
    if tries.last_failed is None:
        return verdict
    if is_resting(tries.failures, tries.ended_at, now):
        pause = back_off(tries.failures)
        return Decision(
            verdict.day, reason=f"the last {tries.failures} runs died: the next try is {pause} after the last"
        )
    return replace(verdict, run_key=f"{verdict.run_key}:after {tries.last_failed}")


def _alive(state: DayState, ended: RunStatus) -> bool:
    return state.outcome == "running" and ended(state.run_id) is None


def _held(asset: str, state: DayState | None, ended: RunStatus) -> str | None:
    """Why the step after `asset` may not start; None where it may."""
    if state is None:
        return f"waits for {asset}, which has not run for this day"
    if state.outcome == "complete":
        return None
    if _alive(state, ended):
        return f"waits for {asset}, which run {state.run_id[:8]} is working"
    return f"held: {asset} {_ended(state, ended)}"


def _ended(state: DayState, ended: RunStatus) -> str:
    if state.outcome == "running":
        return f"was not finished, run {state.run_id[:8]} ended as {ended(state.run_id)}"
    return f"is {state.outcome} ({state.reason or 'no reason recorded'}), run {state.run_id[:8]}"


def newest_day(today: date) -> date:
    """The newest day that can be scored."""
    return today - timedelta(days=1)


def due_days(newest: date, days: int) -> list[date]:
    """The last `days` days up to `newest`, oldest first."""
    return [newest - timedelta(days=back) for back in reversed(range(days))]


def missed(
    days: Sequence[date], states: States, now: datetime, known: bool, ended: RunStatus
) -> tuple[list[Decision], str | None]:
    """First-link days that no run has touched or whose run died: one launch each.

    `known`: whether anything was scored before these days. Before the first day ever scored, none is missed.
    """
    touched = {day: states[COMMITMENT.asset, day] for day in days if (COMMITMENT.asset, day) in states}
    start = days[0] if known else min(touched, default=days[-1])
    absent = [day for day in days if day >= start and (day not in touched or died(touched[day], ended))]
    due = [day for day in absent if now >= COMMITMENT_STEP.opens_at(day) + _SCHEDULE_IS_FIRST]
    if due:
        return [
            Decision(
                day, run_key=f"{COMMITMENT.asset}:{day}:{touched[day].run_id if day in touched else 'missed'}"
            )
            for day in due
        ], None
    if absent:
        return [], f"{absent[0]}: waits for 02:00 UTC of {absent[0] + timedelta(days=1)}"
    return [], None
