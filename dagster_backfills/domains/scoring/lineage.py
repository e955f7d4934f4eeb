"""Column lineage of the scoring tables. It is declared because Python computes them, so it can't be read from SQL."""

_SCORES, _RISKS, _MEMBERS = "scoring.commitment_scores", "scoring.churn_risk_scores", "scoring.members"
_VISITS = ("scoring.visits.visited_on", f"{_MEMBERS}.joined_date")
_GOAL = (*_VISITS, f"{_MEMBERS}.expected_visits_per_week")
_SCORED = (f"{_SCORES}.score", f"{_SCORES}.days_since_last_visit")
_AT_RISK = (f"{_RISKS}.level", f"{_RISKS}.score", f"{_RISKS}.commitment_score")

LINEAGE: dict[str, dict[str, tuple[str, ...]]] = {
    "scoring/commitment_scores": {
        "member_id": (f"{_MEMBERS}.id",),
        "score": _GOAL,
        "attendance_decay": _GOAL,
        "missed_sessions": _GOAL,
        "time_gaps": _GOAL,
        "decline_velocity": _GOAL,
        "band": _GOAL,
        "time_decay": _VISITS,
        "velocity_per_week": _VISITS,
        "days_since_last_visit": _VISITS,
    },
    "scoring/churn_risk_scores": {
        "member_id": (f"{_SCORES}.member_id",),
        "level": _SCORED,
        "score": _SCORED,
        "commitment_score": (f"{_SCORES}.score",),
        "days_since_last_visit": (f"{_SCORES}.days_since_last_visit",),
    },
    "scoring/coach_actions": {
        "member_id": (f"{_RISKS}.member_id",),
        "coach_id": ("scoring.member_coaches.coach_id",),
        "type": _AT_RISK,
        "priority": _AT_RISK,
        "title": _AT_RISK,
        "description": _AT_RISK,
        "reason_codes": _AT_RISK,
        "commitment_score": (f"{_RISKS}.commitment_score",),
        "churn_risk_score": (f"{_RISKS}.score",),
        "churn_risk_level": (f"{_RISKS}.level",),
        "days_since_last_visit": (f"{_RISKS}.days_since_last_visit",),
    },
}
# Columns of `scoring.members` with the newest day's values.
ON_MEMBER = {
    **{f"commitment_{name}": (f"{_SCORES}.{name}",) for name in ("score", "band", "day")},
    **{f"churn_risk_{name}": (f"{_RISKS}.{name}",) for name in ("score", "level", "day")},
}
