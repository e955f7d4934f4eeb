"""Generates the file and the users for the import benchmark, reproducibly by seed."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

USERS = 200_000
FEEDBACK = (
    "",
    "Great session, thank you",
    'She said "see you next week", so we will',
    "We spoke about work and family.\nNext time: travel",
    "Good progress with past tenses",
)


def write_file(path: Path, rows: int, seed: int = 1) -> int:
    """Write `rows` sessions, of which 2 % have an error, of every kind. Returns the number of bad rows."""
    rng, bad = random.Random(seed), 0
    start = datetime(2022, 1, 1, tzinfo=UTC)
    with path.open("w", encoding="utf-8", newline="") as out:
        out.write(
            "session_id,session_type,participant_email,volunteer_email,date,duration_min,rating,feedback_text,"
            "language_level\n"
        )
        for n in range(rows):
            moment = start + timedelta(minutes=rng.randrange(1_500_000))
            feedback = rng.choice(FEEDBACK).replace('"', '""')
            values = [
                f"KS-{n:09d}",
                rng.choice(("Language Connect", "Mentorship", "mentorship")),
                f"participant{rng.randrange(USERS // 2)}@example.com",
                f"volunteer{rng.randrange(USERS // 2)}@example.org",
                moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
                str(rng.choice((30, 45, 60, 90))),
                rng.choice(("", "1", "2", "3", "4", "5")),
                f'"{feedback}"' if feedback else "",
                rng.choice(("", "A1", "a2", "B1", "b2", "C1", "C2")),
            ]
            if n % 50 == 49:
                bad += 1
                _spoil(values, n // 50 % 10)
            out.write(",".join(values) + "\n")
    return bad


def _spoil(values: list[str], how: int) -> None:
    if how == 9:
        values.append("surplus")
        return
    position, value = (
        (0, ""),
        (1, "Coffee"),
        (2, "nobody@example.com"),
        (3, "no address"),
        (4, "31/12/2023"),
        (5, "-5"),
        (6, "7"),
        (8, "Z9"),
        (0, "KS-000000000"),
    )[how]
    values[position] = value


def add_users(conn: psycopg.Connection) -> None:
    """Insert 200,000 users, half of them participants."""
    conn.execute(
        """
        insert into kintell.users (email, name, role)
        select 'participant' || n || '@example.com', 'Participant ' || n, 'participant'
        from generate_series(0, %(h)s - 1) n
        union all
        select 'volunteer' || n || '@example.org', 'Volunteer ' || n, 'volunteer'
        from generate_series(0, %(h)s - 1) n
        """,
        {"h": USERS // 2},
    )
    conn.execute("analyze kintell.users")
