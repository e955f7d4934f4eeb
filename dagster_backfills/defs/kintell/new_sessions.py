"""Sessions that the database does not have, and their events, straight into their tables. Not here: whether each
row's keys are known to hold (`users.keep_users`), and what becomes of sessions that are there."""

from typing import TYPE_CHECKING

import psycopg

from dagster_backfills.defs.kintell.copybinary import copy_fields, fields_of
from dagster_backfills.defs.kintell.statements import statements
from dagster_backfills.lib.postgres.arrays import TextArray

if TYPE_CHECKING:
    from uuid import UUID

    import polars as pl

# Columns in the order of `copy_sessions` and of `copy_events`; those of both are encoded once.
_USERS = ("participant_id", "volunteer_id")
_TIMES = ("scheduled_at", "completed_at", "duration_minutes")
_KIND = ("external_session_id", "session_type")
SESSION = ("id", *_USERS, "job", *_TIMES, *_KIND, "rating", "feedback_text", "language_level")
EVENT = ("id", "event_id", "job", *_USERS, "event_position", *_TIMES, "event_type", *_KIND, "language_level")


def existing(conn: psycopg.Connection, ids: "pl.Series") -> "pl.Series":
    """Which of the ids the database has."""
    import polars as pl

    sql, found = statements(), []
    if sql.any_between(conn, first_id=ids.min(), last_id=ids.max()):
        found = [taken for (taken,) in sql.existing_ids(conn, ids=TextArray(ids))]
    return ids.is_in(pl.Series(found, dtype=pl.String).implode())


def copy_new(conn: psycopg.Connection, job: "UUID", rows: "pl.DataFrame") -> int:
    """COPY sessions that are not there, whose users and job are known to stay, and their events."""
    import polars as pl

    if not rows.height:
        return 0
    sql, when = statements(), pl.col("scheduled_at")
    fields = fields_of(
        rows.select(
            pl.exclude("row_number"),
            pl.lit(job.bytes).alias("job"),
            when.alias("completed_at"),
            pl.lit("kintell.session.completed").alias("event_type"),
        )
    )
    sql.check_rows(conn, role="replica")
    copied = copy_fields(conn, sql.copy_sessions.sql, [fields[name] for name in SESSION])
    copy_fields(conn, sql.copy_events.sql, [fields[name] for name in EVENT])
    sql.check_rows(conn, role="origin")
    return copied
