"""Acting on the small school of the fixtures, and looking at what came of it."""

import psycopg

from dagster_backfills_tests.domains.progress.reference import read_sources, stored_user_stats, user_stats

ASSETS = {"progress/user_progress_stats", "progress/cohort_stats"}


def marked(conn: psycopg.Connection) -> set[str]:
    """The cohorts that are stale; both assets always agree."""
    rows = conn.execute(
        "select partition, array_agg(distinct asset) from backfill.stale_marks group by 1"
    ).fetchall()
    assert all(set(assets) == ASSETS for _, assets in rows)
    return {partition for partition, _ in rows}


def save(conn: psycopg.Connection, user: str, question: str, class_id: str, options: list[str]) -> None:
    conn.execute(
        """
        insert into progress.user_progress (user_id, question_id, class_id, selected_options, last_attempt_at)
        values (%s, %s, %s, %s, now())
        on conflict (user_id, question_id) do update
        set selected_options = excluded.selected_options, last_attempt_at = excluded.last_attempt_at
        """,
        [user, question, class_id, options],
    )


def assert_right(conn: psycopg.Connection) -> None:
    assert stored_user_stats(conn) == user_stats(read_sources(conn))


def counts(conn: psycopg.Connection, user: str) -> tuple[int, int, int] | None:
    return conn.execute(
        "select questions_interacted, questions_mastered, total_questions"
        " from progress.user_progress_stats where user_id = %s",
        [user],
    ).fetchone()
