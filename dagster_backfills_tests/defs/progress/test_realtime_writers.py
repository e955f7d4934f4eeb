"""The triggers beside other writers: nothing is lost, no deadlock with a batch, no mark too few or many."""

import threading
import time
from collections.abc import Callable

import psycopg

from dagster_backfills_tests.defs.progress.small_school import assert_right, counts, marked, save


def wait_until_blocked(conn: psycopg.Connection, pid: int) -> None:
    """Return when the backend waits for a lock that another one holds."""
    deadline = time.monotonic() + 60
    while not conn.execute("select cardinality(pg_blocking_pids(%s)) > 0", [pid]).fetchone()[0]:  # type: ignore[index]
        assert time.monotonic() < deadline, "the second session never waited"
        time.sleep(0.005)


def blocked_behind(
    school: psycopg.Connection, other: psycopg.Connection, work: Callable[[], None]
) -> threading.Thread:
    """`work`, done on `other` by a thread that now waits for a lock."""
    thread = threading.Thread(target=work)
    thread.start()
    wait_until_blocked(school, other.info.backend_pid)
    return thread


def test_two_transactions_that_save_for_one_student_lose_nothing(school, database_url):
    with psycopg.connect(database_url) as one, psycopg.connect(database_url) as two:
        save(one, "ann", "q1", "k1", ["b"])
        thread = blocked_behind(school, two, lambda: save(two, "ann", "q2", "k1", ["b"]))
        one.commit()
        thread.join()
        two.commit()
    assert counts(school, "ann") == (2, 0, 3)


def test_students_saved_together_are_written_in_key_order_as_a_batch_writes_them(school, database_url):
    save(school, "bob", "q1", "k1", ["b"])
    save(school, "ann", "q1", "k1", ["b"])
    with psycopg.connect(database_url) as batch, psycopg.connect(database_url) as app:
        batch.execute("set lock_timeout = '5s'")
        write = "update progress.user_progress_stats set updated_at = now() where user_id = %s"
        batch.execute(write, ["ann"])
        thread = blocked_behind(
            school, app, lambda: app.execute("update progress.user_progress set is_mastered = true").close()
        )
        batch.execute(write, ["bob"])
        batch.commit()
        thread.join()
        app.commit()
    assert_right(school)


def test_a_question_added_to_a_module_that_is_being_moved_marks_where_the_module_arrives(
    school, database_url
):
    with psycopg.connect(database_url) as mover, psycopg.connect(database_url) as author:
        mover.execute("update progress.modules set class_id = 'k2' where id = 'm1b'")
        add = "insert into progress.questions values ('new', 'm1b')"
        thread = blocked_behind(school, author, lambda: author.execute(add).close())
        mover.commit()
        school.execute("delete from backfill.stale_marks")
        thread.join()
        author.commit()
    assert marked(school) == {"c2"}


def test_a_cohort_deleted_while_a_question_is_added_leaves_no_mark(school, database_url):
    with psycopg.connect(database_url) as author, psycopg.connect(database_url) as admin:
        author.execute("insert into progress.questions values ('new', 'm1')")
        delete = "delete from progress.cohorts where id = 'c1'"
        thread = blocked_behind(school, admin, lambda: admin.execute(delete).close())
        author.commit()
        thread.join()
        admin.commit()
    assert marked(school) == set()
