"""Sample data of real shapes for the progress domain, from a demo's thousands to a benchmark's millions.

Generated from a seed in chunks, and loaded by COPY. Not here: the shapes themselves, computing statistics.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from psycopg import sql

from dagster_backfills.defs.progress.declared import PROGRESS
from dagster_backfills.engine.table.frames import copy_rows
from dagster_backfills.errors import UserError
from dagster_backfills.samples.loading import has_rows
from dagster_backfills.samples.progress_rows import (
    DAY,
    ProgressPlan,
    ProgressSize,
    cohorts,
    content,
    rows_of_user,
    schools,
    users,
)

_CHUNK_ROWS = 100_000

DEMO = ProgressSize(schools=6, cohorts=40, users=3_000, progress=60_000, gaps=True)
BENCHMARK = ProgressSize(schools=100, cohorts=2_000, users=200_000, progress=5_000_000, questions=150)


@dataclass(frozen=True)
class ProgressData:
    """Generated rows: the small tables as Arrow tables, by name; the progress rows in chunks."""

    size: ProgressSize
    seed: int
    tables: dict[str, pa.Table]
    plan: ProgressPlan = field(repr=False)

    def progress_chunks(self) -> Iterator[pa.Table]:
        """The progress rows, earlier attempts first, so that a student's lie scattered as real ones do.

        Columns are those of the table; options are Postgres array literals.
        """
        chunks = max(1, -(-self.size.progress // _CHUNK_ROWS))
        rng = np.random.default_rng([self.seed, 2])
        for number in range(chunks):
            yield self.plan.chunk(rng, number, chunks)


def generate_progress(size: ProgressSize, seed: int) -> ProgressData:
    """The same rows for the same size and seed. Raises ValueError where the progress rows don't fit."""
    rng = np.random.default_rng([seed, 1])
    cohort_table, began = cohorts(rng, size)
    inside = content(rng, size, cohort_table["id"])
    user_table, cohort_of_user, is_deleted = users(rng, size, cohort_table["id"], began)
    questions = inside.questions_of_cohort[cohort_of_user]
    plan = ProgressPlan(
        user_ids=user_table["id"].combine_chunks(),
        question_ids=inside.tables["questions"]["id"].combine_chunks(),
        class_ids=inside.tables["classes"]["id"].combine_chunks(),
        class_of_question=inside.class_of_question,
        rows_of_user=rows_of_user(rng, size.progress, questions, is_deleted),
        first_question=inside.first_question[cohort_of_user],
        questions=questions,
        # Most begin at the beginning.
        start=rng.integers(0, np.maximum(questions, 1)) * (rng.random(size.users) < 0.2),
        joined=began[cohort_of_user] + rng.integers(0, 30 * DAY, size.users),
    )
    # The content before the students, so that a student who is loaded finds its questions.
    tables = {"schools": schools(size), "cohorts": cohort_table, **inside.tables, "users": user_table}
    return ProgressData(size, seed, tables, plan)


def load_demo(conn: psycopg.Connection[Any]) -> str:
    """Load the demo's data, where the domain has none, and say in a sentence what was done."""
    if has_rows(conn, sql.Identifier("progress", "schools")):
        return "The tables of the progress domain have rows: no sample data was loaded."
    load_progress(conn, DEMO, seed=1)
    return (
        f"Loaded {DEMO.cohorts:,} cohorts, {DEMO.users:,} users and {DEMO.progress:,} progress rows; "
        "statistics as a neglected system would have them."
    )


def load_progress(
    conn: psycopg.Connection[Any], size: ProgressSize, seed: int, *, realtime: bool = False
) -> ProgressData:
    """Generate and load, in one transaction, into empty tables; ANALYZE. Returns what was generated.

    Without `realtime` there are no statistics and no stale marks afterwards, or with `size.gaps` those of a neglected
    system. Raises UserError where the tables have rows.
    """
    data = generate_progress(size, seed)
    with conn.transaction():
        if has_rows(conn, sql.Identifier("progress", "schools")):
            raise UserError(
                "The tables of the progress domain have rows; sample data was not loaded.",
                hint="Load it into an empty database.",
            )
        for name, table in data.tables.items():
            _copy(conn, name, table)
        for chunk in data.progress_chunks():
            _copy(conn, "user_progress", chunk)
        if not realtime:
            _forget_statistics(conn)
            if size.gaps:
                _leave_gaps(conn)
        for name in (*data.tables, "user_progress", "user_progress_stats", "cohort_stats"):
            conn.execute(sql.SQL("analyze progress.{}").format(sql.Identifier(name)))
    return data


def _forget_statistics(conn: psycopg.Connection[Any]) -> None:
    """What the triggers did is undone."""
    conn.execute("delete from progress.user_progress_stats")
    conn.execute("delete from backfill.stale_marks where asset = any(%s)", [PROGRESS.assets])


def _copy(conn: psycopg.Connection[Any], name: str, table: pa.Table) -> None:
    columns = sql.SQL(", ").join(map(sql.Identifier, table.column_names))
    into = sql.SQL("copy progress.{} ({}) from stdin (format csv)").format(sql.Identifier(name), columns)
    copy_rows(conn, into, table.columns)


def _leave_gaps(conn: psycopg.Connection[Any]) -> None:
    """Of five cohorts two were never computed, one is stale, one has rows missing and left over, one is right."""
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
    # As many rows as there should be, but not of the right students.
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
    # A change that the triggers see.
    conn.execute(
        """
        update progress.user_progress set is_mastered = not is_mastered where (user_id, question_id) in (
            select distinct on (u.cohort_id) p.user_id, p.question_id
            from progress.user_progress as p inner join progress.users as u on u.id = p.user_id
            where u.deleted_at is null and u.cohort_id = any(%s) order by u.cohort_id, p.user_id, p.question_id
        )""",
        [stale],
    )
