"""Reference implementation of the scoring rules: one member at a time, in exact fractions."""

from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from math import floor


def rounded(value: Fraction | int, places: int = 0) -> Fraction:
    return Fraction(floor(Fraction(value) * 10**places + Fraction(1, 2)), 10**places)


@dataclass
class Member:
    joined: date
    visits: list[date]
    per_week: Fraction | None = None


@dataclass
class Known:
    """A member's data as of a day: visits up to that day, oldest first, and their counts."""

    day: date
    joined_on: date
    per_week: Fraction | None
    visits: list[date]

    def between(self, after: int, upto: int) -> int:
        """Visits in (day − after, day − upto]."""
        low, high = self.day - timedelta(days=after), self.day - timedelta(days=upto)
        return sum(low < v <= high for v in self.visits)

    @property
    def joined(self) -> int:
        return max(0, (self.day - self.joined_on).days)

    @property
    def last(self) -> int:
        return (self.day - self.visits[-1]).days

    @property
    def gaps(self) -> list[int]:
        return [(b - a).days for a, b in zip(self.visits, self.visits[1:], strict=False)]


def known(member: Member, day: date) -> Known:
    return Known(day, member.joined, member.per_week, sorted(v for v in member.visits if v <= day))


def attendance(k: Known) -> Fraction:
    v30, v60 = k.between(30, 0), k.between(60, 30)
    if k.joined >= 60:
        if v60 == 0:
            return Fraction(min(100, 15 * v30))
        value = min(Fraction(100), Fraction(100 * v30, v60))
        if v30 >= 8:
            value += 20
        elif v30 >= 4:
            value += 10
        return min(Fraction(100), value)
    start = k.day - timedelta(days=k.joined // 2)
    second = sum(v >= start for v in k.visits)
    first = sum(v < start for v in k.visits)
    if first == 0:
        return Fraction(min(100, 10 * k.between(30, 0)))
    return min(Fraction(100), Fraction(100 * second, first))


def missed(k: Known) -> Fraction:
    if k.per_week is not None:
        per_week = k.per_week
    elif len(k.visits) >= 2:
        weeks = max(Fraction(1), Fraction((k.visits[-1] - k.visits[0]).days, 7))
        per_week = len(k.visits) / weeks
    else:
        per_week = Fraction(2)
    expected = per_week / 7 * 30
    value = min(Fraction(100), 100 * k.between(30, 0) / expected)
    return value / 2 if k.last > 14 else value


def time_gaps(k: Known) -> Fraction:
    last = k.last
    if len(k.visits) == 1:
        if last <= 1:
            return Fraction(55)
        if last <= 7:
            return Fraction(max(10, 55 - 5 * last))
        if last <= 14:
            return Fraction(max(5, 20 - 2 * (last - 7)))
        if last <= 21:
            return Fraction(max(2, 6 - (last - 14)))
        return Fraction(max(0, 2 - last // 30))
    average = Fraction(sum(k.gaps), len(k.gaps))
    score = 10
    for limit, value in ((3, 100), (5, 90), (7, 75), (10, 60), (14, 40), (21, 20)):
        if average <= limit:
            score = value
            break
    if any(g > 21 for g in k.gaps):
        score -= 30
    elif any(g > 14 for g in k.gaps):
        score -= 15
    if last > 21:
        score -= 40
    elif last > 14:
        score -= 25
    elif last > 7:
        score -= 10
    return Fraction(max(0, score))


def velocity(k: Known) -> Fraction:
    """Per 30 days; 0 with fewer than 4 visits."""
    if len(k.visits) < 4:
        return Fraction(0)
    v30, v60, v90 = k.between(30, 0), k.between(60, 30), k.between(90, 60)
    if k.joined >= 90 and v60 > 0 and v90 > 0:
        return Fraction((v30 - v60) + (v60 - v90), 2)
    return Fraction(v30 - v60)


def decline(k: Known) -> Fraction:
    if len(k.visits) < 4:
        return Fraction(50)
    return min(Fraction(100), max(Fraction(0), 50 + 10 * velocity(k)))


def decay(k: Known) -> Fraction:
    if k.last <= 1:
        return Fraction(1)
    return rounded(max(Fraction(0), 1 - Fraction(18, 1000) * (k.last - 1)), 2)


def flags(k: Known) -> dict[str, bool]:
    v30, v60 = k.between(30, 0), k.between(60, 30)
    last = k.last if k.visits else None
    variance = Fraction(0)
    if k.gaps:
        mean = Fraction(sum(k.gaps), len(k.gaps))
        variance = sum((g - mean) ** 2 for g in k.gaps) / len(k.gaps)
    return {
        "no_recent_visits": last is None or last > 14,
        "rapid_decline": v60 > 0 and v30 < Fraction(v60, 2),
        "large_gap": last is not None and (last > 21 or any(g > 21 for g in k.gaps)),
        "inconsistent_pattern": variance > 50,
        "new_member_low_attendance": k.joined < 30 and v30 < 2,
        "declining_frequency": velocity(k) / Fraction(43, 10) < Fraction(-1, 2),
    }


def band(score: int) -> str:
    return "low" if score <= 30 else "moderate" if score <= 60 else "good" if score <= 80 else "high"


WEIGHTS = (Fraction(35, 100), Fraction(25, 100), Fraction(25, 100), Fraction(15, 100))


def commitment(member: Member, day: date, weights: tuple[Fraction, ...] = WEIGHTS) -> dict[str, object]:
    k = known(member, day)
    if k.visits:
        factors = [rounded(f(k)) for f in (attendance, missed, time_gaps, decline)]
        fading = decay(k)
        score = rounded(sum(w * f for w, f in zip(weights, factors, strict=True)) * fading)
    else:
        factors, fading, score = [Fraction(0)] * 4, Fraction(0), Fraction(0)
    names = ("attendance_decay", "missed_sessions", "time_gaps", "decline_velocity")
    return {
        "score": int(score),
        **{name: int(f) for name, f in zip(names, factors, strict=True)},
        "time_decay": float(fading),
        "velocity_per_week": float(rounded(velocity(k) / Fraction(43, 10), 1)),
        "days_since_last_visit": k.last if k.visits else None,
        **flags(k),
        "band": band(int(score)),
    }


def churn(commitment_score: int, last: int | None) -> tuple[str, int]:
    if last is None:
        return "high", 85
    if commitment_score >= 80:
        level = "none"
    elif commitment_score >= 61:
        level = "low"
    elif commitment_score >= 21:
        level = "medium"
    else:
        level = "high"
    risk = (100 - commitment_score) * Fraction(12, 10) ** (last // 14)
    return level, int(rounded(max(Fraction(0), min(Fraction(100), risk))))


def action(level: str, commitment_score: int, last: int | None) -> tuple[str, str] | None:
    """Type and priority. Never visited counts as longer ago than any limit."""
    if level not in ("low", "medium", "high"):
        return None
    if level == "high" and (last is None or last > 14):
        return "contact_member", "high"
    if level == "medium" and commitment_score < 50:
        return "send_campaign", "medium"
    if last is not None and 7 <= last <= 13:
        return "check_in", "medium"
    if commitment_score < 40:
        return "investigate_issue", "medium"
    if level in ("medium", "high"):
        return "follow_up", "low"
    return None
