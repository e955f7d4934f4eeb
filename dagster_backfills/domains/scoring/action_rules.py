"""Rules that choose a coach's action for a member, and its text. Pure functions on frames; no database."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd


class ActionRule(NamedTuple):
    """One type of action. `code` is its reason code, in addition to the member's risk level."""

    type: str
    priority: str
    title: str
    code: str | None


# In order: the first rule that matches applies.
RULES = (
    ActionRule("contact_member", "high", "Contact a member who has stopped coming", "no_visit_in_14_days"),
    ActionRule(
        "send_campaign", "medium", "Send a campaign to a member who is drifting away", "commitment_below_50"
    ),
    ActionRule(
        "check_in", "medium", "Check in with a member not seen for a week", "last_visit_7_to_13_days_ago"
    ),
    ActionRule("investigate_issue", "medium", "Find out what keeps a member away", "commitment_below_40"),
    ActionRule("follow_up", "low", "Follow up with a member at risk", None),
)
_COLUMNS = ["member_id", "coach_id", "commitment_score", "churn_risk_score", "churn_risk_level"]
_TEXT_INPUTS = ["rule", "commitment_score", "churn_risk_score", "churn_risk_level", "days_since_last_visit"]
_TEXTS = ["type", "priority", "title", "description", "reason_codes"]


def coach_actions(pairs: pd.DataFrame) -> pd.DataFrame:
    """The rows of `scoring.coach_actions` without their day, for the pairs to which a rule applies.

    `pairs` has one row for each member and coach: `member_id`, `coach_id`, `commitment_score`, `churn_risk_score`,
    `churn_risk_level`, `days_since_last_visit` (missing if never visited, which counts as longer than any limit).
    """
    pairs = pairs.assign(rule=_first_rule(pairs))
    pairs = pairs[pairs["rule"] >= 0]
    # Few distinct combinations occur: build the texts once for each.
    distinct = pairs[_TEXT_INPUTS].drop_duplicates()
    texts = [_texts(*row) for row in distinct.itertuples(index=False)]
    with_texts = distinct.join(pd.DataFrame(texts, index=distinct.index, columns=_TEXTS, dtype="str"))
    return pairs.merge(with_texts, how="left", on=_TEXT_INPUTS)[[*_COLUMNS, *_TEXTS, "days_since_last_visit"]]


def _first_rule(pairs: pd.DataFrame) -> np.ndarray:
    """The position in `RULES` of the first rule that matches, or -1."""
    level = pairs["churn_risk_level"].to_numpy(dtype=object)
    commitment = pairs["commitment_score"].to_numpy()
    never = pairs["days_since_last_visit"].isna().to_numpy()
    last = pairs["days_since_last_visit"].fillna(0).to_numpy(dtype="int64")
    matches = [
        (level == "high") & (never | (last > 14)),
        (level == "medium") & (commitment < 50),
        ~never & (last >= 7) & (last <= 13),
        commitment < 40,
        (level == "medium") | (level == "high"),
    ]
    return np.where(level == "none", -1, np.select(matches, range(len(RULES)), default=-1))


def _texts(position: int, commitment: int, risk: int, level: str, last: Any) -> tuple[str, ...]:
    """The values of the columns `_TEXTS`."""
    rule, days = RULES[position], None if pd.isna(last) else int(last)
    codes = reason_codes(rule, level, never=days is None)
    return rule.type, rule.priority, rule.title, describe(commitment, risk, level, days), codes


def describe(commitment: int, risk: int, level: str, last: int | None) -> str:
    """One sentence with the numbers that led to the action."""
    if last is None:
        visit = "Has never visited"
    elif last == 0:
        visit = "Last visit on the day itself"
    else:
        visit = f"Last visit {last} day{'' if last == 1 else 's'} ago"
    return f"{visit}; commitment {commitment} of 100, churn risk {risk} of 100 ({level})."


def reason_codes(rule: ActionRule, level: str, *, never: bool) -> str:
    """The reason codes as a Postgres array literal, such as `{high_risk,no_visit_in_14_days}`."""
    codes = [f"{level}_risk", "never_visited" if never and rule is RULES[0] else rule.code]
    return "{" + ",".join(c for c in codes if c) + "}"
