"""Demo data of the kintell domain: a small CSV file of sessions with some invalid rows, and its users."""

import csv
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg import sql

from dagster_backfills.domains.kintell.file.columns import KNOWN
from dagster_backfills.samples.loading import has_rows, load_rows
from dagster_backfills.state import state_dir

ROWS = 600
USERS = 60
_ROLES = ("participant", "volunteer")
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
    """The path of the demo file."""
    return state_dir() / "kintell" / "demo" / "sessions.csv"


def load_demo(conn: psycopg.Connection) -> str:
    """Write the file, and create its users if the table is empty. Returns a message."""
    if has_rows(conn, sql.Identifier("kintell", "users")):
        return "The tables of the kintell domain have rows: no sample data was loaded."
    bad = write_demo(demo_file())
    people = [
        (f"{role}.{n:02}@example.com", f"{role.capitalize()} {n}", role)
        for role in _ROLES
        for n in range(USERS)
    ]
    load_rows(conn, sql.Identifier("kintell", "users"), ("email", "name", "role"), people)
    return f"Created {len(people)} users and a file of {ROWS} sessions, {bad} of them invalid: {demo_file()}"


def write_demo(path: Path, seed: int = 4) -> int:
    """Write the file, which depends only on the seed. Returns the number of invalid rows."""
    rng, bad = random.Random(seed), 0
    start = datetime(2024, 1, 8, 9, tzinfo=UTC)
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
                "date": f"{start + timedelta(hours=rng.randrange(2000)):%Y-%m-%dT%H:%M:%SZ}",
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
