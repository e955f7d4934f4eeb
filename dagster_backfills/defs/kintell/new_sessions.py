"""Sessions that the database does not have, and their events, straight into their tables. Not here: whether each
row's keys are known to hold (`users.keep_users`), and what becomes of sessions that are there."""

from typing import TYPE_CHECKING

import psycopg

from dagster_backfills.defs.kintell.copybinary import copy_frame
from dagster_backfills.defs.kintell.statements import statements

if TYPE_CHECKING:
    from uuid import UUID

    import polars as pl


def existing(conn: psycopg.Connection, ids: "pl.Series") -> "pl.Series":
    """Which of the ids the database has."""
    import polars as pl

    found = [taken for (taken,) in statements().existing_ids(conn, ids=array_literal(ids))]
    return ids.is_in(pl.Series(found, dtype=pl.String).implode())


def array_literal(texts: "pl.Series") -> str:
    """As Postgres reads it; adapting a list of thousands one by one costs more than the query."""
    escaped = texts.str.replace_all("\\", "\\\\", literal=True).str.replace_all('"', '\\"', literal=True)
    return '{"' + '","'.join(escaped.to_list()) + '"}'


def copy_new(conn: psycopg.Connection, job: "UUID", rows: "pl.DataFrame") -> int:
    """COPY sessions that are not there, whose users and job are known to stay, and their events."""
    import polars as pl

    if not rows.height:
        return 0
    sql, when = statements(), pl.col("scheduled_at")
    users = ("participant_id", "volunteer_id")
    rows = rows.with_columns(
        pl.lit(job.bytes).alias("job"),
        when.alias("completed_at"),
        pl.lit("kintell.session.completed").alias("event_type"),
    )
    times = ("scheduled_at", "completed_at", "duration_minutes")
    what = ("external_session_id", "session_type")
    sql.check_rows(conn, role="replica")
    copied = copy_frame(
        conn,
        sql.copy_sessions.sql,
        rows.select("id", *users, "job", *times, *what, "rating", "feedback_text", "language_level"),
    )
    copy_frame(
        conn,
        sql.copy_events.sql,
        rows.select(
            "id", "event_id", "job", *users, "event_position", *times, "event_type", *what, "language_level"
        ),
    )
    sql.check_rows(conn, role="origin")
    return copied
