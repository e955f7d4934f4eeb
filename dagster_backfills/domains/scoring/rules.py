"""The scoring rules as pure functions on frames with one row per member, in integer arithmetic.

Quotients are rounded half up from numerator and denominator, so that ties don't depend on floating-point errors.
Not here: reading the features (`features`, `queries.sql`) and storing the scores (`histories`).
"""

import numpy as np
import pandas as pd

from dagster_backfills.domains.scoring.weights import UNIT, Weights

FACTORS = ("attendance_decay", "missed_sessions", "time_gaps", "decline_velocity")
FLAGS = (
    "no_recent_visits",
    "rapid_decline",
    "large_gap",
    "inconsistent_pattern",
    "new_member_low_attendance",
    "declining_frequency",
)
NEVER_VISITED_CHURN = 85
NOT_A_NUMBER = 1_000_000  # represents NaN in `expected_hundredths`; real goals are smaller
_GOAL = "expected_visits_per_week must be 0 or more"
_MAX_STEP = 26  # from this step on, 1.2^step exceeds 100


def half_up(numerator: np.ndarray, denominator: np.ndarray | int) -> np.ndarray:
    """numerator / denominator, rounded half up. The denominator must be positive."""
    return (2 * numerator + denominator) // (2 * denominator)


def problems(features: pd.DataFrame) -> pd.Series:
    """Members who can't be scored, with the reason, by member ID."""
    goal = features.set_index("member_id")["expected_hundredths"]
    bad = goal[(goal < 0) | (goal >= NOT_A_NUMBER)]
    return bad.map(lambda h: f"{_GOAL}, is {'not a number' if h >= NOT_A_NUMBER else f'{h / 100:g}'}")


def attendance_decay(f: pd.DataFrame) -> np.ndarray:
    """Visits in the last 30 days relative to the 30 days before; for a new member, second half relative to first."""
    v30, v60, second = (f[c].to_numpy() for c in ("v30", "v60", "second_half_visits"))
    first = f["visits"].to_numpy() - second
    bonus = np.where(v30 >= 8, 20, np.where(v30 >= 4, 10, 0))
    kept = np.minimum(100, half_up(100 * v30, np.maximum(v60, 1))) + bonus
    established = np.minimum(100, np.where(v60 == 0, 15 * v30, kept))
    ratio = half_up(100 * second, np.maximum(first, 1))
    new = np.minimum(100, np.where(first == 0, 10 * v30, ratio))
    return np.where(f["joined_days"].to_numpy() >= 60, established, new)


def missed_sessions(f: pd.DataFrame) -> np.ndarray:
    """Visits in the last 30 days relative to those expected; halved if the last visit was over 14 days ago."""
    v30, visits, span, last = (f[c].to_numpy() for c in ("v30", "visits", "span_days", "days_since_last"))
    own = f["expected_hundredths"].to_numpy(dtype="float64", na_value=np.nan)
    # Expected in 30 days = 30 × numerator ÷ denominator: the member's goal, its average, or 2 per week.
    has_own, has_history = own > 0, visits >= 2  # a goal of 0 counts as none
    numerator = np.where(has_own, np.nan_to_num(own, nan=1).astype("int64"), np.where(has_history, visits, 2))
    denominator = np.where(has_own, 700, np.where(has_history, np.maximum(span, 7), 7))
    top, bottom = 100 * v30 * denominator, 30 * numerator
    top, bottom = np.where(top > 100 * bottom, 100, top), np.where(top > 100 * bottom, 1, bottom)
    return half_up(top, np.where(last > 14, 2 * bottom, bottom))


def time_gaps(f: pd.DataFrame) -> np.ndarray:
    """By the average gap between visits, minus points for long gaps and a long absence; a single visit by its age."""
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
    """Twice the velocity in visits per 30 days, so that it is an integer. 0 with fewer than 4 visits."""
    v30, v60, v90 = (f[c].to_numpy() for c in ("v30", "v60", "v90"))
    averaged = (f["joined_days"].to_numpy() >= 90) & (v60 > 0) & (v90 > 0)
    doubled = np.where(averaged, v30 - v90, 2 * (v30 - v60))
    return np.where(f["visits"].to_numpy() < 4, 0, doubled)


def decay_hundredths(last: np.ndarray) -> np.ndarray:
    """The time decay in hundredths: 1 until one day after the last visit, then 0.018 less per day, at least 0."""
    return half_up(np.clip(1000 - 18 * (last - 1), 0, 1000), 10)


def flags(f: pd.DataFrame, doubled: np.ndarray) -> dict[str, np.ndarray]:
    """The six risk flags. A member who never visited has no recent visits, but no gap either."""
    visits, last = f["visits"].to_numpy(), f["days_since_last"].to_numpy()
    v30, v60, joined = f["v30"].to_numpy(), f["v60"].to_numpy(), f["joined_days"].to_numpy()
    gaps, squares, span = visits - 1, f["gap_squares"].to_numpy(), f["span_days"].to_numpy()
    return {
        "no_recent_visits": (visits == 0) | (last > 14),
        "rapid_decline": (v60 > 0) & (2 * v30 < v60),
        "large_gap": (visits > 0) & ((f["max_gap"].to_numpy() > 21) | (last > 21)),
        # Population variance of the gaps > 50, without a division.
        "inconsistent_pattern": (gaps > 0) & (gaps * squares - span * span > 50 * gaps * gaps),
        "new_member_low_attendance": (joined < 30) & (v30 < 2),
        "declining_frequency": 10 * doubled < -43,
    }


def band(score: np.ndarray) -> np.ndarray:
    """≤ 30 low, ≤ 60 moderate, ≤ 80 good, else high."""
    return np.array(["low", "moderate", "good", "high"])[np.searchsorted([30, 60, 80], score, side="left")]


def commitment_scores(features: pd.DataFrame, weights: Weights = Weights()) -> pd.DataFrame:  # noqa: B008
    """The rows of `scoring.commitment_scores` without their day, one for each row of `features`.

    `features` has `member_id` and integers: `joined_days` (days since joining, 0 for a later joining date),
    `expected_hundredths` (the goal in hundredths of a visit per week; missing or 0 if none), `visits`, `v30`, `v60`,
    `v90`, `second_half_visits`, `span_days` (first to last visit), `days_since_last`, `max_gap` and `gap_squares`. All
    counts are 0 for a member without visits.

    Factors are rounded before they are weighted, so that a stored score can be recomputed from its own row.
    Raises ValueError, naming the first member who can't be scored.
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
    """Churn risk by 14-day steps since the last visit (0 to 26), and by 100 − commitment (0 to 100)."""
    return np.array(
        [
            [min(100, (2 * gap * 6**step + 5**step) // (2 * 5**step)) for gap in range(101)]
            for step in range(_MAX_STEP + 1)
        ]
    )


def churn_risk_scores(commitment: pd.DataFrame) -> pd.DataFrame:
    """The rows of `scoring.churn_risk_scores` without their day.

    `commitment` has `member_id`, `commitment_score` and `days_since_last_visit` (missing if never visited).
    """
    score = commitment["commitment_score"].to_numpy()
    never = commitment["days_since_last_visit"].isna().to_numpy()
    last = commitment["days_since_last_visit"].fillna(0).to_numpy(dtype="int64")
    level = np.array(["high", "medium", "low", "none"])[np.searchsorted([20, 60, 79], score, side="left")]
    risk = churn_table()[np.minimum(last // 14, _MAX_STEP), 100 - score]
    return pd.DataFrame(
        {
            "member_id": commitment["member_id"],
            "level": np.where(never, "high", level),
            "score": np.where(never, NEVER_VISITED_CHURN, risk),
            "commitment_score": score,
            "days_since_last_visit": commitment["days_since_last_visit"],
        }
    )
