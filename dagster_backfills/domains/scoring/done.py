"""Which coach actions are done: what people say of them. Not here: which actions there are, which runs compute."""

from datetime import date
from typing import Any

import psycopg

from dagster_backfills.domains.scoring.statements import STATEMENTS


def mark_done(conn: psycopg.Connection[Any], day: date, member: str, coach: str, done_by: str) -> None:
    """Tick an action off. Nothing happens where it is done already, or is none."""
    STATEMENTS.mark_done(conn, day=day, member=member, coach=coach, done_by=done_by)


def mark_open(conn: psycopg.Connection[Any], day: date, member: str, coach: str) -> None:
    """It was not done after all."""
    STATEMENTS.mark_open(conn, day=day, member=member, coach=coach)
