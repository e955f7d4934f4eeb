"""Demo data of the training domain: organizations of very different sizes, with realistic gaps in their records."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from dagster_backfills.samples.loading import has_rows, load_rows

_VIDEOS = (
    ("sat-1", "Working Safely at Height"),
    ("sat-2", "Handling Chemicals"),
    ("sat-3", "Machine Guarding"),
    ("sat-4", "First Aid at Work"),
    ("sat-5", "Fire Safety and Evacuation"),
)
_PLACES = (
    "Harbour",
    "Northfield",
    "Sankt Pölten",
    "Ōsaka",
    "Maple Street",
    "Łódź",
    "Riverside",
    "Kerry & Sons",
)
_TRADES = (
    "Logistics",
    "Dental Care",
    "Foundry",
    "Bakery",
    "Hospital",
    "Primary School",
    "Roofing, Ltd.",
    "Hotel",
)
_ROLES = ("member",) * 18 + ("manager", "admin")
_BEGAN = datetime(2023, 3, 1, 8, tzinfo=UTC)

COMPLETIONS = "employee_training_video_completions"
Row = tuple[Any, ...]
# Rows by table, with values in the order of COLUMNS.
TrainingData = dict[str, list[Row]]

COLUMNS = {
    "training_videos": ("id", "title", "position"),
    "organizations": ("id", "name", "created_at"),
    "members": ("id", "organization_id", "user_email", "role", "deactivated", "created_at"),
    COMPLETIONS: (
        "organization_id", "member_id", "video_id", "completed_at", "created_at", "backfill_id",
    ),
}  # fmt: skip


def generate_training(organizations: int = 60, members: int = 4_000, seed: int = 1) -> TrainingData:
    """Generate rows, which depend only on the arguments.

    A few organizations have most of the members, and some have none. Older organizations have records for the first
    three to five videos; the newest third has none.
    """
    rng = random.Random(seed)
    data: TrainingData = {table: [] for table in COLUMNS}
    data["training_videos"] = [(*video, position) for position, video in enumerate(_VIDEOS, start=1)]
    weights = [rng.paretovariate(0.9) if rng.random() > 0.05 else 0.0 for _ in range(organizations)]
    number = 0
    for position, weight in enumerate(weights):
        organization = f"org_{rng.getrandbits(60):015x}"
        created = _BEGAN + timedelta(days=position * 12, minutes=rng.randrange(600))
        name = f"{rng.choice(_PLACES)} {rng.choice(_TRADES)}"
        data["organizations"].append((organization, name, created))
        known_videos = 0 if position > organizations * 2 // 3 else rng.choice((3, 4, 5, 5, 5))
        diligence = rng.betavariate(2, 2)
        for _ in range(round(members * weight / sum(weights))):
            number += 1
            member = f"mem_{rng.getrandbits(60):015x}"
            joined = created + timedelta(days=rng.expovariate(1 / 90))
            data["members"].append(
                (member, organization, f"person{number}@example.org", rng.choice(_ROLES), rng.random() < 0.07, joined)
            )  # fmt: skip
            if rng.random() > 0.04:
                data[COMPLETIONS] += _records(rng, organization, member, joined, known_videos, diligence)
    return data


def _records(
    rng: random.Random, organization: str, member: str, joined: datetime, videos: int, diligence: float
) -> Iterator[Row]:
    """One member's records of the first `videos` videos. A member who completes one often completes the next."""
    going = rng.random() < diligence
    at = joined
    for video, _ in _VIDEOS[:videos]:
        at += timedelta(days=rng.expovariate(1 / 9), minutes=rng.randrange(480))
        yield (organization, member, video, at if going else None, joined, None)
        going = going and rng.random() < 0.55 + diligence * 0.4


def load_training(conn: psycopg.Connection[Any], data: TrainingData) -> None:
    """Load the rows into empty tables in one transaction. The triggers mark all organizations as stale."""
    with conn.transaction():
        for table, columns in COLUMNS.items():
            load_rows(conn, sql.Identifier("training", table), columns, data[table])


def load_demo(conn: psycopg.Connection[Any]) -> str:
    """Load the demo data if the domain's tables are empty. Returns a message."""
    if has_rows(conn, *(sql.Identifier("training", table) for table in COLUMNS)):
        return "The tables of the training domain have rows: no sample data was loaded."
    data = generate_training()
    load_training(conn, data)
    return (
        f"Loaded {len(data['organizations']):,} organizations, {len(data['members']):,} members and "
        f"{len(data[COMPLETIONS]):,} completion records; the newest organizations have none."
    )
