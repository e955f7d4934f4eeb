"""The scoring rules as pure functions on frames with one row a member, in whole-number arithmetic.

Every quotient is rounded half up from its numerator and denominator, so that no floating error decides a tie.
Not here: where the numbers come from (`queries.sql`) and where they go (`assets.py`).
"""

import numpy as np
import pandas as pd

from dagster_backfills.domains.scoring.weights import UNIT, Weights

FLAGS = (
    "no_recent_visits",
    "rapid_decline",
    "large_gap",
    "inconsistent_pattern",
    "new_member_low_attendance",
    "declining_frequency",
)
NEVER_VISITED_CHURN = 85
NO_NUMBER = 1_000_000  # what stands in `expected_hundredths` for a goal that is none; a real one is below
_GOAL = "expected_visits_per_week must be 0 or more"
_LAST_STEP = 26  # from here on 1.2^step × 1 exceeds 100


def half_up(numerator: np.ndarray, denominator: np.ndarray | int) -> np.ndarray:
    """numerator / denominator, rounded half up. The denominator is above 0."""
    return (2 * numerator + denominator) // (2 * denominator)


def problems(features: pd.DataFrame) -> pd.Series:
    """What makes a member unfit for scoring, by member id; empty where all are fit."""
    goal = features.set_index("member_id")["expected_hundredths"]
    bad = goal[(goal < 0) | (goal >= NO_NUMBER)]
    return bad.map(lambda h: f"{_GOAL}, is {'not a number' if h >= NO_NUMBER else f'{h / 100:g}'}")


def attendance_decay(f: pd.DataFrame) -> np.ndarray:
    """Visits of the last 30 days against the 30 before; for a new member, those of its second half."""
    v30, v60, second = (f[c].to_numpy() for c in ("v30", "v60", "second_half_visits"))
    first = f["visits"].to_numpy() - second
    bonus = np.where(v30 >= 8, 20, np.where(v30 >= 4, 10, 0))
    kept = np.minimum(100, half_up(100 * v30, np.maximum(v60, 1))) + bonus
    settled = np.minimum(100, np.where(v60 == 0, 15 * v30, kept))
    grown = half_up(100 * second, np.maximum(first, 1))
    new = np.minimum(100, np.where(first == 0, 10 * v30, grown))
    return np.where(f["joined_days"].to_numpy() >= 60, settled, new)


def missed_sessions(f: pd.DataFrame) -> np.ndarray:
    """Visits of the last 30 days against those expected; halved where the last visit is over 14 days ago."""
    v30, visits, span, last = (f[c].to_numpy() for c in ("v30", "visits", "span_days", "days_since_last"))
    own = f["expected_hundredths"].to_numpy(dtype="float64", na_value=np.nan)
    # Expected in 30 days = 30 × numerator ÷ denominator: from the member, from its history, or 2 a week.
    has_own, has_history = own > 0, visits >= 2  # an own goal of 0 is none
    numerator = np.where(has_own, np.nan_to_num(own, nan=1).astype("int64"), np.where(has_history, visits, 2))
    denominator = np.where(has_own, 700, np.where(has_history, np.maximum(span, 7), 7))
    top, bottom = 100 * v30 * denominator, 30 * numerator
    top, bottom = np.where(top > 100 * bottom, 100, top), np.where(top > 100 * bottom, 1, bottom)
    return half_up(top, np.where(last > 14, 2 * bottom, bottom))


def time_gaps(f: pd.DataFrame) -> np.ndarray:
    """The average gap, less for long gaps and a long absence; a single visit goes by its age alone."""
    visits, span, widest, last = (
        f[c].to_numpy() for c in ("visits", "span_days", "max_gap", "days_since_last")
    )
    gaps = np.maximum(visits - 1, 1)
    score = np.select(
        [span <= limit * gaps for limit in (3, 5, 7, 10, 14, 21)], [100, 90, 75, 60, 40, 20], default=10
    )
    score -= np.where(widest > 21, 30, np.where(widest > 14, 15, 0))
    score -= np.where(last > 21, 40, np.where(last > 14, 25, np.where(last > 7, 10, 0)))
    single = np.select(
        [last <= 1, last <= 7, last <= 14, last <= 21],
        [
            np.full_like(last, 55),
            np.maximum(10, 55 - 5 * last),
            np.maximum(5, 20 - 2 * (last - 7)),
            np.maximum(2, 6 - (last - 14)),
        ],
        default=np.maximum(0, 2 - last // 30),
    )
    return np.where(visits == 1, single, np.maximum(score, 0))


def doubled_velocity(f: pd.DataFrame) -> np.ndarray:
    """Twice the velocity in visits per 30 days, which is whole. Fewer than 4 visits tell nothing: 0."""
    v30, v60, v90 = (f[c].to_numpy() for c in ("v30", "v60", "v90"))
    averaged = (f["joined_days"].to_numpy() >= 90) & (v60 > 0) & (v90 > 0)
    doubled = np.where(averaged, v30 - v90, 2 * (v30 - v60))
    return np.where(f["visits"].to_numpy() < 4, 0, doubled)


def decay_hundredths(last: np.ndarray) -> np.ndarray:
    """The time decay in hundredths: 1 up to a day after the last visit, then 0.018 less a day, at least 0."""
    return half_up(np.clip(1000 - 18 * (last - 1), 0, 1000), 10)


def flags(f: pd.DataFrame, doubled: np.ndarray) -> dict[str, np.ndarray]:
    """The six risk flags. A member that never visited has no recent visit, but no gap either."""
    visits, last = f["visits"].to_numpy(), f["days_since_last"].to_numpy()
    v30, v60, joined = f["v30"].to_numpy(), f["v60"].to_numpy(), f["joined_days"].to_numpy()
    gaps, squares, span = visits - 1, f["gap_squares"].to_numpy(), f["span_days"].to_numpy()
    return {
        "no_recent_visits": (visits == 0) | (last > 14),
        "rapid_decline": (v60 > 0) & (2 * v30 < v60),
        "large_gap": (visits > 0) & ((f["max_gap"].to_numpy() > 21) | (last > 21)),
        # Population variance of the gaps above 50, without a division.
        "inconsistent_pattern": (gaps > 0) & (gaps * squares - span * span > 50 * gaps * gaps),
        "new_member_low_attendance": (joined < 30) & (v30 < 2),
        "declining_frequency": 10 * doubled < -43,
    }


def band(score: np.ndarray) -> np.ndarray:
    """≤ 30 low, ≤ 60 moderate, ≤ 80 good, else high."""
    return np.array(["low", "moderate", "good", "high"])[np.searchsorted([30, 60, 80], score, side="left")]


def commitment_scores(features: pd.DataFrame, weights: Weights = Weights()) -> pd.DataFrame:  # noqa: B008
    """The history rows of `scoring.commitment_scores` without their day, one a row of `features`.

    `features` has `member_id` and whole numbers: `joined_days` (days since joining, 0 for a later joining
    date), `expected_hundredths` (the goal in hundredths of a visit a week; missing or 0: none), `visits`, `v30`, `v60`,
    `v90`, `second_half_visits`, `span_days` (first to last visit), `days_since_last`, `max_gap` and `gap_squares`;
    those about visits are 0 where there is none. Factors are rounded first and weighed then, so that a stored
    row can be recomputed from its own columns. Raises ValueError that names the first member who can't be scored.
    """
    for member, problem in problems(features).items():
        raise ValueError(f"Member {member!r} can't be scored: {problem}.")
    none = features["visits"].to_numpy() == 0
    last = features["days_since_last"].to_numpy()
    doubled = doubled_velocity(features)
    factors = {
        "attendance_decay": attendance_decay(features),
        "missed_sessions": missed_sessions(features),
        "time_gaps": time_gaps(features),
        "decline_velocity": np.clip(50 + 5 * doubled, 0, 100),
    }
    factors = {name: np.where(none, 0, factor) for name, factor in factors.items()}
    decay = np.where(none, 0, decay_hundredths(last))
    total = sum(w * factor for w, factor in zip(weights.parts, factors.values(), strict=True))
    score = half_up(total * decay, UNIT * 100)
    return pd.DataFrame(
        {
            "member_id": features["member_id"],
            "score": score,
            **factors,
            "time_decay": decay / 100,
            "velocity_per_week": half_up(100 * doubled, 86) / 10,
            "days_since_last_visit": pd.arrays.IntegerArray(last.astype("int64"), mask=none),
            **flags(features, doubled),
            "band": band(score),
            "weights_version": weights.version,
        }
    )


def churn_table() -> np.ndarray:
    """Churn risk by 14-day steps since the last visit (0 … 26) and by 100 − commitment (0 … 100)."""
    return np.array(
        [
            [min(100, (2 * gap * 6**step + 5**step) // (2 * 5**step)) for gap in range(101)]
            for step in range(_LAST_STEP + 1)
        ]
    )


def churn_risk_scores(commitment: pd.DataFrame) -> pd.DataFrame:
    """The history rows of `scoring.churn_risk_scores` without their day.

    `commitment` has `member_id`, `commitment_score` and `days_since_last_visit` (missing: never visited).
    """
    score = commitment["commitment_score"].to_numpy()
    never = commitment["days_since_last_visit"].isna().to_numpy()
    last = commitment["days_since_last_visit"].fillna(0).to_numpy(dtype="int64")
    level = np.array(["high", "medium", "low", "none"])[np.searchsorted([20, 60, 79], score, side="left")]
    risk = churn_table()[np.minimum(last // 14, _LAST_STEP), 100 - score]
    return pd.DataFrame(
        {
            "member_id": commitment["member_id"],
            "level": np.where(never, "high", level),
            "score": np.where(never, NEVER_VISITED_CHURN, risk),
            "commitment_score": score,
            "days_since_last_visit": commitment["days_since_last_visit"],
        }
    )
