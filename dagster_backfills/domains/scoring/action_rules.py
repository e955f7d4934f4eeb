"""Which action a coach should take for a member, and its words. Pure functions on frames; no database."""

from typing import NamedTuple

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
_LEVELS = ("none", "low", "medium", "high")
_COLUMNS = ("member_id", "coach_id", "commitment_score", "churn_risk_score", "churn_risk_level")


def coach_actions(pairs: pd.DataFrame) -> pd.DataFrame:
    """The rows of `scoring.coach_actions` without their day; only pairs to which a rule applies.

    `pairs` has one row a member and coach: `member_id`, `coach_id`, `commitment_score`, `churn_risk_score`,
    `churn_risk_level`, `days_since_last_visit` (missing: never visited, which is longer ago than any limit).
    """
    rule = _first_rule(pairs)
    fits = rule >= 0
    pairs, rule = pairs.loc[fits].reset_index(drop=True), rule[fits]
    worded = _texts(pairs, rule)
    columns = {
        "type": np.array([r.type for r in RULES], dtype=object)[rule],
        "priority": np.array([r.priority for r in RULES], dtype=object)[rule],
        "title": np.array([r.title for r in RULES], dtype=object)[rule],
        "description": worded["description"],
        "reason_codes": worded["reason_codes"],
    }
    kept = {name: pairs[name] for name in _COLUMNS}
    texts = {name: pd.array(values, dtype="str") for name, values in columns.items()}
    return pd.DataFrame({**kept, **texts, "days_since_last_visit": pairs["days_since_last_visit"]})


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


def _texts(pairs: pd.DataFrame, rule: np.ndarray) -> dict[str, np.ndarray]:
    """Descriptions and reason codes. Few combinations of numbers occur, so each is put into words once."""
    never = pairs["days_since_last_visit"].isna().to_numpy()
    last = np.where(never, -1, pairs["days_since_last_visit"].fillna(0).to_numpy(dtype="int64"))
    level = np.searchsorted(np.array(sorted(_LEVELS)), pairs["churn_risk_level"].to_numpy(dtype=str))
    commitment, risk = pairs["commitment_score"].to_numpy(), pairs["churn_risk_score"].to_numpy()
    key = (((last + 1) * 101 + commitment) * 101 + risk) * len(_LEVELS) + level
    key = key * len(RULES) + rule
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    described, codes = np.empty(len(first), dtype=object), np.empty(len(first), dtype=object)
    names = sorted(_LEVELS)
    for at, row in enumerate(first):
        numbers = int(commitment[row]), int(risk[row]), names[level[row]]
        described[at] = describe(*numbers, None if never[row] else int(last[row]))
        codes[at] = reason_codes(RULES[rule[row]], names[level[row]], bool(never[row]))
    return {"description": described[inverse], "reason_codes": codes[inverse]}


def describe(commitment: int, risk: int, level: str, last: int | None) -> str:
    """One sentence with the numbers that led to the action."""
    if last is None:
        seen = "Has never visited"
    elif last == 0:
        seen = "Last visit on the day itself"
    else:
        seen = f"Last visit {last} day{'' if last == 1 else 's'} ago"
    return f"{seen}; commitment {commitment} of 100, churn risk {risk} of 100 ({level})."


def reason_codes(rule: ActionRule, level: str, never: bool) -> str:
    """The reasons as a Postgres array literal, such as `{high_risk,no_visit_in_14_days}`."""
    codes = [f"{level}_risk", "never_visited" if never and rule is RULES[0] else rule.code]
    return "{" + ",".join(c for c in codes if c) + "}"
