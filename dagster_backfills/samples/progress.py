"""Load realistic sample data for the progress domain, for the demo, tests and benchmarks.

Not here: generating the rows (`progress_rows`).
"""

from typing import Any

import psycopg
import pyarrow as pa
from psycopg import sql

from dagster_backfills.defs.progress.declared import PROGRESS
from dagster_backfills.engine.table.frames import copy_rows
from dagster_backfills.samples.loading import has_rows
from dagster_backfills.samples.progress_rows import ProgressData, ProgressSize, generate_progress

DEMO = ProgressSize(schools=6, cohorts=40, users=3_000, progress=60_000, gaps=True)


def load_demo(conn: psycopg.Connection[Any]) -> str:
    """Load the demo data if the domain's tables are empty. Returns a message."""
    if has_rows(conn, sql.Identifier("progress", "schools")):
        return "The tables of the progress domain have rows: no sample data was loaded."
    load_progress(conn, DEMO, seed=1)
    return (
        f"Loaded {DEMO.cohorts:,} cohorts, {DEMO.users:,} users and {DEMO.progress:,} progress rows; "
        "some statistics are missing, stale or wrong."
    )


def load_progress(
    conn: psycopg.Connection[Any], size: ProgressSize, seed: int, *, realtime: bool = False
) -> ProgressData:
    """Generate rows, load them into empty tables in one transaction, and ANALYZE. Returns the generated data.

    With `realtime`, the statistics and stale marks that the triggers write are kept. Otherwise there are none, or with
    `size.gaps` incomplete ones.
    """
    data = generate_progress(size, seed)
    with conn.transaction():
        for name, table in data.tables.items():
            _copy(conn, name, table)
        for chunk in data.progress_chunks():
            _copy(conn, "user_progress", chunk)
        if not realtime:
            _delete_statistics(conn)
            if size.gaps:
                _leave_gaps(conn)
        for name in (*data.tables, "user_progress", "user_progress_stats", "cohort_stats"):
            conn.execute(sql.SQL("analyze progress.{}").format(sql.Identifier(name)))
    return data


def _delete_statistics(conn: psycopg.Connection[Any]) -> None:
    """Undo what the triggers did."""
    conn.execute("delete from progress.user_progress_stats")
    conn.execute("delete from backfill.stale_marks where asset = any(%s)", [PROGRESS.assets])


def _copy(conn: psycopg.Connection[Any], name: str, table: pa.Table) -> None:
    columns = sql.SQL(", ").join(map(sql.Identifier, table.column_names))
    into = sql.SQL("copy progress.{} ({}) from stdin (format csv)").format(sql.Identifier(name), columns)
    copy_rows(conn, into, table.columns)


def _leave_gaps(conn: psycopg.Connection[Any]) -> None:
    """Of five cohorts, two have no statistics, one is stale, one has missing and leftover rows, one is correct."""
    ids = [row[0] for row in conn.execute("select id from progress.cohorts order by created_at, id")]
    computed = [cohort for number, cohort in enumerate(ids) if number % 5 > 1]
    stale, patchy = ids[2::5], ids[3::5]
    conn.execute(
        "select progress.write_user_stats(array(select id from progress.users where cohort_id = any(%s)))",
        [computed],
    )
    conn.execute(
        "insert into progress.cohort_stats "
        "(cohort_id, total_students, total_questions, total_modules, average_completion) "
        + PROGRESS.statements["cohort_stats"].sql,
        {"partition_keys": computed, "unit_keys": None},
    )
    # The right number of rows, but for the wrong students.
    conn.execute(
        """
        delete from progress.user_progress_stats where user_id in (
            select distinct on (cohort_id) id from progress.users
            where deleted_at is null and cohort_id = any(%s) order by cohort_id, id
        )""",
        [patchy],
    )
    conn.execute(
        """
        insert into progress.user_progress_stats
            (user_id, cohort_id, questions_interacted, questions_mastered, total_questions)
        select distinct on (cohort_id) id, cohort_id, 1, 0, 1 from progress.users
        where deleted_at is not null and cohort_id = any(%s) order by cohort_id, id""",
        [patchy],
    )
    # A change that the triggers notice.
    conn.execute(
        """
        update progress.user_progress set is_mastered = not is_mastered where (user_id, question_id) in (
            select distinct on (u.cohort_id) p.user_id, p.question_id
            from progress.user_progress as p inner join progress.users as u on u.id = p.user_id
            where u.deleted_at is null and u.cohort_id = any(%s) order by u.cohort_id, p.user_id, p.question_id
        )""",
        [stale],
    )
