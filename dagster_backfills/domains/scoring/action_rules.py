"""Which action a coach should take for a member, and its words. Pure functions on frames; no database."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd


class ActionRule(NamedTuple):
    """What an action of this type says. `code` is its reason beside the member's risk level."""

    type: str
    priority: str
    title: str
    code: str | None


# In order: the first that fits is taken.
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
_WORDED_BY = ["rule", "commitment_score", "churn_risk_score", "churn_risk_level", "days_since_last_visit"]
_WORDS = ["type", "priority", "title", "description", "reason_codes"]


def coach_actions(pairs: pd.DataFrame) -> pd.DataFrame:
    """The rows of `scoring.coach_actions` without their day; only pairs to which a rule applies.

    `pairs` has one row a member and coach: `member_id`, `coach_id`, `commitment_score`, `churn_risk_score`,
    `churn_risk_level`, `days_since_last_visit` (missing: never visited, which is longer ago than any limit).
    """
    pairs = pairs.assign(rule=_first_rule(pairs))
    pairs = pairs[pairs["rule"] >= 0]
    # Few combinations of numbers occur, so that each is put into words once.
    different = pairs[_WORDED_BY].drop_duplicates()
    words = [_words(*each) for each in different.itertuples(index=False)]
    worded = different.join(pd.DataFrame(words, index=different.index, columns=_WORDS, dtype="str"))
    return pairs.merge(worded, how="left", on=_WORDED_BY)[[*_COLUMNS, *_WORDS, "days_since_last_visit"]]


def _first_rule(pairs: pd.DataFrame) -> np.ndarray:
    """The position in `RULES` of the first rule that fits, or -1."""
    level = pairs["churn_risk_level"].to_numpy(dtype=object)
    commitment = pairs["commitment_score"].to_numpy()
    never = pairs["days_since_last_visit"].isna().to_numpy()
    last = pairs["days_since_last_visit"].fillna(0).to_numpy(dtype="int64")
    fits = [
        (level == "high") & (never | (last > 14)),
        (level == "medium") & (commitment < 50),
        ~never & (last >= 7) & (last <= 13),
        commitment < 40,
        (level == "medium") | (level == "high"),
    ]
    return np.where(level == "none", -1, np.select(fits, range(len(RULES)), default=-1))


def _words(rule: int, commitment: int, risk: int, level: str, last: Any) -> tuple[str, ...]:
    """What is said of a pair with these numbers, in the order of `_WORDS`."""
    found, days = RULES[rule], None if pd.isna(last) else int(last)
    said = describe(commitment, risk, level, days), reason_codes(found, level, never=days is None)
    return found.type, found.priority, found.title, *said


def describe(commitment: int, risk: int, level: str, last: int | None) -> str:
    """One sentence with the numbers that led to the action."""
    if last is None:
        seen = "Has never visited"
    elif last == 0:
        seen = "Last visit on the day itself"
    else:
        seen = f"Last visit {last} day{'' if last == 1 else 's'} ago"
    return f"{seen}; commitment {commitment} of 100, churn risk {risk} of 100 ({level})."


def reason_codes(rule: ActionRule, level: str, *, never: bool) -> str:
    """The reasons as a Postgres array literal, such as `{high_risk,no_visit_in_14_days}`."""
    codes = [f"{level}_risk", "never_visited" if never and rule is RULES[0] else rule.code]
    return "{" + ",".join(c for c in codes if c) + "}"
