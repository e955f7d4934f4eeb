"""Explain one member's score: apply the rules to this member alone, and return their inputs. Writes nothing."""

from dataclasses import dataclass
from datetime import date
from typing import Any

import pandas as pd
import psycopg

from dagster_backfills.domains.scoring import rules
from dagster_backfills.domains.scoring.action_rules import RULES, coach_actions
from dagster_backfills.domains.scoring.features import read_frame
from dagster_backfills.domains.scoring.statements import STATEMENTS
from dagster_backfills.domains.scoring.weights import UNIT, Weights
from dagster_backfills.errors import UserError


@dataclass(frozen=True)
class Factor:
    """One factor: its value from 0 to 100, its weight (all sum to 1), and the numbers behind it."""

    name: str
    value: int
    weight: float
    because: str


@dataclass(frozen=True)
class Explanation:
    """A member's score as of a day. `stored` is the score in `scoring.commitment_scores`, if there is one."""

    member: str
    name: str
    day: date
    status: str
    features: dict[str, Any]
    factors: list[Factor]
    weighted_sum: float
    time_decay: float
    score: int
    band: str
    velocity_per_week: float
    flags: list[str]
    churn_level: str
    churn_score: int
    action: str | None
    action_because: str
    coaches: list[str]
    stored: int | None


def explain(conn: psycopg.Connection, member: str, day: date, weights: Weights) -> Explanation:
    """Apply the rules to one member. Raises UserError if the member is unknown or can't be scored."""
    about = STATEMENTS.member_for_explanation(conn, member=member, day=day)
    if about is None:
        raise UserError(
            f"There is no member {member!r}.",
            hint="Pass an ID from scoring.members. For a day: backfills status scoring DAY",
        )
    name, status, stored, coaches = about
    try:
        frame = read_frame(conn, "features", day, [member], due_only=False)
    except psycopg.DataError as error:
        raise UserError(f"Member {member!r} can't be scored: {error.diag.message_primary}.") from error
    for problem in rules.problems(frame):
        raise UserError(
            f"Member {member!r} can't be scored: {problem}.", hint="Correct it in scoring.members."
        )
    scores = rules.commitment_scores(frame, weights)
    risk = rules.churn_risk_scores(scores.assign(commitment_score=scores["score"]))
    row, churn = scores.iloc[0], risk.iloc[0]
    features: dict[str, Any] = {k: _to_python(v) for k, v in frame.iloc[0].items()}
    because = _because(features)
    factors = [
        Factor(name, int(row[name]), part / UNIT, because[name])
        for name, part in zip(rules.FACTORS, weights.parts, strict=True)
    ]
    action, why = _action(risk)
    return Explanation(
        member=member,
        name=name,
        day=day,
        status=status,
        features=features,
        factors=factors,
        weighted_sum=round(sum(f.value * f.weight for f in factors), 4),
        time_decay=float(row["time_decay"]),
        score=int(row["score"]),
        band=str(row["band"]),
        velocity_per_week=float(row["velocity_per_week"]),
        flags=[flag for flag in rules.FLAGS if row[flag]],
        churn_level=str(churn["level"]),
        churn_score=int(churn["score"]),
        action=action,
        action_because=why,
        coaches=list(coaches),
        stored=stored,
    )


def _to_python(value: Any) -> Any:
    return None if pd.isna(value) else value.item() if hasattr(value, "item") else value


def _because(f: dict[str, Any]) -> dict[str, str]:
    """The numbers behind each factor, as text."""
    if not f["visits"]:
        return dict.fromkeys(rules.FACTORS, "no visits")
    if f["joined_days"] >= 60:
        attendance = f"{f['v30']} visits in the last 30 days, {f['v60']} in the 30 days before"
    else:
        half = f["joined_days"] // 2
        first = f["visits"] - f["second_half_visits"]
        attendance = (
            f"joined {f['joined_days']} days ago: {f['second_half_visits']} visits in the last {half} days, "
            f"{first} before"
        )
    if f["expected_hundredths"]:
        goal, source = f["expected_hundredths"] / 100, "the member's own goal"
    elif f["visits"] >= 2:
        goal, source = f["visits"] * 7 / max(f["span_days"], 7), "the member's average"
    else:
        goal, source = 2.0, "the default"
    missed = (
        f"{f['v30']} visits in the last 30 days, {goal * 30 / 7:.1f} expected ({goal:.2f} per week, {source})"
    )
    average = f["span_days"] / (f["visits"] - 1) if f["visits"] > 1 else None
    gaps = (
        f"a single visit, {f['days_since_last']} days ago"
        if average is None
        else f"average gap {average:.1f} days, largest gap {f['max_gap']}, last visit {f['days_since_last']} days ago"
    )
    trend = f"{f['v30']}, {f['v60']} and {f['v90']} visits in the last three 30-day periods, newest first"
    if f["visits"] < 4:
        trend = f"only {f['visits']} visits in total, too few for a trend"
    halved = ", halved for an absence of more than 14 days" if f["days_since_last"] > 14 else ""
    return {
        "attendance_decay": attendance,
        "missed_sessions": missed + halved,
        "time_gaps": gaps,
        "decline_velocity": trend,
    }


def _action(risk: pd.DataFrame) -> tuple[str | None, str]:
    """The action's type and its reason, or None and the reason why there is no action."""
    pairs = risk.rename(columns={"score": "churn_risk_score", "level": "churn_risk_level"})
    result = coach_actions(pairs.assign(coach_id="any"))
    if result.empty:
        at_risk = risk["level"].iloc[0] != "none"
        return None, "no rule matches" if at_risk else "the member is not at risk"
    chosen = result.iloc[0]
    number = [rule.type for rule in RULES].index(chosen["type"]) + 1
    return str(chosen["type"]), f"rule {number} of {len(RULES)} matches: {chosen['reason_codes'][1:-1]}"
