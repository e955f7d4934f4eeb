"""Demo data of scoring: gyms, members and visits with realistic habits, gaps and errors."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import psycopg
from psycopg import sql

from dagster_backfills.domains.scoring.chain import newest_day
from dagster_backfills.samples.loading import has_rows, load_rows

_FIRST = ("Ada", "Ben", "Chloé", "Dmitri", "Emeka", "Farah", "Grete", "Hiro", "Inés", "Jonas", "Kofi", "Lena")
_LAST = ("Abara", "Brandt", "Costa", "Dahl", "Evers", "Fonseca", "Grün", "Haas", "Ito", "Jensen", "Kowalski")
_MEMBER = ("id", "gym_id", "first_name", "last_name", "status", "joined_date", "expected_visits_per_week")


@dataclass(frozen=True)
class ScoringSize:
    """How much to generate. The last gym has no coaches, and the first coach has no members."""

    gyms: int = 6
    members: int = 1_500
    coaches_per_gym: int = 3


DEMO = ScoringSize()


@dataclass(frozen=True)
class _Habit:
    """Days between visits, days since the last visit, and number of visits."""

    gap: float
    last: int
    visits: int


_HABITS = (
    (0.45, lambda r: _Habit(r.uniform(1.5, 4), r.randint(0, 3), r.randint(20, 80))),
    (0.20, lambda r: _Habit(r.uniform(5, 10), r.randint(0, 8), r.randint(8, 30))),
    (0.15, lambda r: _Habit(r.uniform(2, 6), r.randint(12, 70), r.randint(8, 40))),
    (0.10, lambda r: _Habit(r.uniform(10, 20), r.randint(3, 20), r.randint(3, 9))),
    (0.06, lambda r: _Habit(1, r.randint(0, 40), 1)),
    (0.04, lambda r: _Habit(1, 0, 0)),
)


def load_demo(conn: psycopg.Connection) -> str:
    """Load the demo data if there are no members. Returns a message."""
    newest = newest_day(datetime.now(UTC).date())
    if has_rows(conn, sql.Identifier("scoring", "members")):
        return "The tables of the scoring domain have rows: no sample data was loaded."
    load_sample(conn, newest)
    return (
        f"Loaded {DEMO.members:,} members of {DEMO.gyms} gyms, with visits up to {newest}; 2 can't be scored."
    )


def load_sample(conn: psycopg.Connection, newest: date, size: ScoringSize = DEMO, seed: int = 5) -> None:
    """Load the source tables, which must be empty, with visits up to `newest`, in one transaction.

    Two members can't be scored: their goal is negative. Some members have left, and some visits are in the future.
    """
    rng = random.Random(seed)
    gyms = [f"gym_{n:03}" for n in range(1, size.gyms + 1)]
    coaches = [
        (f"coa_{gym[4:]}_{n}", gym) for gym in gyms[:-1] or gyms for n in range(1, size.coaches_per_gym + 1)
    ]
    members = [_member(rng, n, rng.choice(gyms), newest) for n in range(1, size.members + 1)]
    with conn.transaction():
        for table, columns, rows in (
            ("gyms", ("id", "name"), [(gym, f"Gym {gym[4:].lstrip('0')}") for gym in gyms]),
            ("coaches", ("id", "gym_id"), coaches),
            ("members", _MEMBER, [row for row, _ in members]),
            ("visits", ("member_id", "visited_on"), _visits(rng, members, newest)),
            ("member_coaches", ("coach_id", "member_id"), _pairs(rng, members, coaches[1:])),
        ):
            load_rows(conn, sql.Identifier("scoring", table), columns, rows)


def _member(rng: random.Random, number: int, gym: str, newest: date) -> tuple[tuple[object, ...], _Habit]:
    habit = rng.choices([make for _, make in _HABITS], [share for share, _ in _HABITS])[0](rng)
    joined = newest - timedelta(days=habit.last + int(habit.gap * habit.visits) + rng.randint(0, 20))
    goal = rng.choice([None, None, 1, 2, 2.5, 3]) if number > 2 else -1
    status = "left" if rng.random() < 0.05 else "active"
    row = (f"mem_{number:06}", gym, rng.choice(_FIRST), rng.choice(_LAST), status, joined, goal)
    return row, habit


def _visits(
    rng: random.Random, members: Iterable[tuple[tuple[object, ...], _Habit]], newest: date
) -> Iterator[tuple[object, date]]:
    for row, habit in members:
        for n in range(habit.visits):
            yield (
                row[0],
                newest - timedelta(days=habit.last + int(n * habit.gap + rng.random() * habit.gap / 2)),
            )
        if habit.visits and rng.random() < 0.02:
            yield row[0], newest + timedelta(days=rng.randint(1, 5))


def _pairs(
    rng: random.Random,
    members: Iterable[tuple[tuple[object, ...], _Habit]],
    coaches: Sequence[tuple[str, str]],
) -> Iterator[tuple[str, object]]:
    """Assign one coach of the gym to each member, and two to some. In a gym without coaches, members have none."""
    of_gym: dict[object, list[str]] = {}
    for coach, gym in coaches:
        of_gym.setdefault(gym, []).append(coach)
    for row, _ in members:
        available = of_gym.get(row[1], [])
        for coach in rng.sample(available, min(len(available), 2 if rng.random() < 0.1 else 1)):
            yield coach, row[0]
