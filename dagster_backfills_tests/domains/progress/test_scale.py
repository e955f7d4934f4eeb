"""The DDL of docs/scale.md on small tables: everything works as before."""

import psycopg
import pytest

from dagster_backfills.samples.progress import load_progress
from dagster_backfills.samples.progress_rows import ProgressSize
from dagster_backfills_tests.chaos import domains

SIZE = ProgressSize(schools=2, cohorts=8, users=200, progress=3_000, questions=30)
ANSWER = """
    update progress.user_progress set is_mastered = not is_mastered, selected_options = '{a}'
    where user_id in (select id from progress.users order by id limit 5)
"""


def whole(conn):
    """Asserts that the statistics of all students are correct without a backfill, by triggers alone."""
    conn.execute("delete from backfill.stale_marks")
    return [each for each in domains.progress(conn, None, domains.Expected([], {})) if "students" in each]


@pytest.fixture
def loaded(conn):
    load_progress(conn, SIZE, seed=2, realtime=True)
    conn.execute("create role reads_progress")
    conn.execute("grant select on progress.user_progress to reads_progress")
    yield conn
    conn.execute("drop owned by reads_progress")
    conn.execute("drop role reads_progress")


def hanging(conn):
    """The table's triggers, constraints and indexes by name, and its privileges."""
    statements = {
        "triggers": "select tgname, tgtype from pg_trigger where tgrelid = 'progress.user_progress'::regclass"
        " and not tgisinternal",
        "constraints": "select conname, pg_get_constraintdef(oid) from pg_constraint"
        " where conrelid = 'progress.user_progress'::regclass and contype <> 'n'",
        "indexes": "select indexname from pg_indexes where tablename = 'user_progress'",
        "grants": "select grantee, privilege_type from information_schema.table_privileges"
        " where table_name = 'user_progress' and grantee = 'reads_progress'",
        "rows": "select user_id, question_id, class_id, selected_options, eliminated_options, is_mastered,"
        " last_attempt_at from progress.user_progress",
    }
    return {name: sorted(map(str, conn.execute(statement))) for name, statement in statements.items()}


def test_the_progress_table_is_partitioned_and_keeps_its_triggers_constraints_and_privileges(
    loaded, project_root
):
    before = hanging(loaded)
    loaded.execute((project_root / "sql/scale/partition_user_progress.sql").read_text())
    assert hanging(loaded) == before and before["grants"] and before["triggers"]
    parts = "select count(*) from pg_inherits where inhparent = 'progress.user_progress'::regclass"
    assert loaded.execute(parts).fetchone() == (64,)
    used = "select count(distinct tableoid) from progress.user_progress"
    assert loaded.execute(used).fetchone()[0] > 40
    for change in (
        ANSWER,
        "delete from progress.user_progress where user_id = (select min(user_id) from progress.user_progress)",
        "insert into progress.user_progress (user_id, question_id, class_id, selected_options) select u.id, q.id,"
        " c.id, '{a}' from progress.users u join progress.classes c on c.cohort_id = u.cohort_id"
        " join progress.modules m on m.class_id = c.id join progress.questions q on q.module_id = m.id"
        " where u.deleted_at is null on conflict do nothing",
    ):
        assert loaded.execute(change).rowcount > 0
        assert whole(loaded) == []
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        loaded.execute("insert into progress.user_progress values ('nobody', 'q', 'c')")


def test_a_students_rows_are_read_from_one_table_partition(loaded, project_root):
    loaded.execute((project_root / "sql/scale/partition_user_progress.sql").read_text())
    plan = loaded.execute("explain select from progress.user_progress where user_id = 'one'").fetchall()
    assert sum("user_progress_p" in line for (line,) in plan) == 1
