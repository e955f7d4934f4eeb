"""Generated members, and their features computed in plain Python like in `queries.sql`."""

from datetime import date, timedelta
from fractions import Fraction

import hypothesis.strategies as st
import pandas as pd

from dagster_backfills_tests.domains.scoring import reference

DAY = date(2026, 6, 30)


def members() -> st.SearchStrategy[reference.Member]:
    """Histories at the edges of the windows: bursts, long pauses, two visits a day, visits after the day."""
    ago = st.one_of(
        st.integers(-3, 100),
        st.sampled_from([0, 1, 7, 8, 13, 14, 15, 21, 22, 29, 30, 31, 59, 60, 61, 89, 90, 91]),
    )
    dense = st.lists(ago, max_size=40)
    paced = st.builds(
        lambda start, steps: [start + sum(steps[:i]) for i in range(len(steps))],
        st.integers(-2, 40),
        st.lists(st.integers(0, 25), max_size=40),
    )
    far = st.lists(st.integers(0, 900), max_size=6)
    return st.builds(
        lambda joined, visits, week: reference.Member(
            joined=DAY - timedelta(days=joined),
            visits=[DAY - timedelta(days=v) for v in visits],
            per_week=week,
        ),
        st.one_of(st.integers(-5, 100), st.integers(0, 1500)),
        st.one_of(dense, paced, far),
        st.one_of(st.none(), st.integers(1, 1500).map(lambda h: Fraction(h, 100))),
    )


def features(population: list[reference.Member], day: date = DAY) -> pd.DataFrame:
    """The frame that the rules expect, for members named `m0`, `m1` and so on."""
    rows = []
    for number, member in enumerate(population):
        k = reference.known(member, day)
        half = day - timedelta(days=k.joined // 2)
        rows.append(
            {
                "member_id": f"m{number}",
                "joined_days": k.joined,
                "expected_hundredths": None if k.per_week is None else int(k.per_week * 100),
                "visits": len(k.visits),
                "v30": k.between(30, 0),
                "v60": k.between(60, 30),
                "v90": k.between(90, 60),
                "second_half_visits": sum(v >= half for v in k.visits),
                "span_days": (k.visits[-1] - k.visits[0]).days if k.visits else 0,
                "days_since_last": k.last if k.visits else 0,
                "max_gap": max(k.gaps, default=0),
                "gap_squares": sum(g * g for g in k.gaps),
            }
        )
    frame = pd.DataFrame(rows)
    return frame.astype({"expected_hundredths": "Int64"})
