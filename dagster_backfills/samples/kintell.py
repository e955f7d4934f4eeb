"""A small file of sessions with some bad rows, and the users that it names, for the demonstration."""

import csv
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from dagster_backfills.domains.kintell.file.columns import KNOWN
from dagster_backfills.state import state_dir

ROWS = 600
USERS = 60
FEEDBACK = ("", "A good start", 'She said "until next week"', "Past tenses,\nthen small talk")
BAD = (
    {"session_type": "Coffee"},
    {"participant_email": "someone.new@example.com"},
    {"volunteer_email": "no address"},
    {"date": "31/12/2024"},
    {"duration_min": "-5"},
    {"rating": "9", "language_level": "Z9"},
    {"session_id": "DEMO-00001"},
)


def demo_file() -> Path:
    """Where the demonstration's file lies."""
    return state_dir() / "kintell" / "demo" / "sessions.csv"


def load_demo(conn: psycopg.Connection) -> str:
    """Write the file, and make its users where there are none."""
    row = conn.execute("select count(*) from kintell.users").fetchone()
    if row and row[0]:
        return f"{row[0]:,} users are there already."
    bad = write_demo(demo_file())
    people = [
        (f"{role}.{n:02}@example.com", f"{role.capitalize()} {n}", role)
        for role in _ROLES
        for n in range(USERS)
    ]
    with conn.cursor() as cursor:
        cursor.executemany("insert into kintell.users (email, name, role) values (%s, %s, %s)", people)
    return f"Made {len(people)} users and a file of {ROWS} sessions, {bad} of them bad: {demo_file()}"


_ROLES = ("participant", "volunteer")


def write_demo(path: Path, seed: int = 4) -> int:
    """Write the file, the same for the same seed; returns how many of its rows can't be imported."""
    rng, bad = random.Random(seed), 0
    begin = datetime(2024, 1, 8, 9, tzinfo=UTC)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, KNOWN, lineterminator="\n")
        writer.writeheader()
        for n in range(1, ROWS + 1):
            row = {
                "session_id": f"DEMO-{n:05}",
                "session_type": rng.choice(("Language Connect", "Mentorship")),
                "participant_email": f"participant.{rng.randrange(USERS):02}@example.com",
                "volunteer_email": f"volunteer.{rng.randrange(USERS):02}@example.com",
                "date": f"{begin + timedelta(hours=rng.randrange(2000)):%Y-%m-%dT%H:%M:%SZ}",
                "duration_min": rng.choice(("30", "45", "60")),
                "rating": rng.choice(("", "3", "4", "5")),
                "feedback_text": rng.choice(FEEDBACK),
                "language_level": rng.choice(("", "A2", "b1", "B2")),
            }
            if n % 40 == 0:
                row |= BAD[bad % len(BAD)]
                bad += 1
            writer.writerow(row)
    return bad
