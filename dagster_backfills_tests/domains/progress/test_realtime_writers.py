"""The triggers with concurrent writers: no lost update, no deadlock with a batch, no missing or extra mark."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import psycopg
import pytest

from dagster_backfills_tests.domains.progress.small_school import assert_right, counts, marked, save


def wait_until_blocked(conn: psycopg.Connection, pid: int) -> None:
    """Waits until the backend waits for a lock."""
    deadline = time.monotonic() + 60
    while not conn.execute("select cardinality(pg_blocking_pids(%s)) > 0", [pid]).fetchone()[0]:  # type: ignore[index]
        assert time.monotonic() < deadline, "the second session never waited"
        time.sleep(0.005)


def blocked_behind(
    school: psycopg.Connection, other: psycopg.Connection, work: Callable[[], object]
) -> "Future[object]":
    """Runs `work` on `other` in a thread, and waits until it waits for a lock. The result includes its error."""
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run).start()
    wait_until_blocked(school, other.info.backend_pid)
    return future


def test_two_transactions_that_save_for_the_same_student_lose_nothing(school, database_url):
    with psycopg.connect(database_url) as one, psycopg.connect(database_url) as two:
        save(one, "ann", "q1", "k1", ["b"])
        waiting = blocked_behind(school, two, lambda: save(two, "ann", "q2", "k1", ["b"]))
        one.commit()
        waiting.result()
        two.commit()
    assert counts(school, "ann") == (2, 0, 3)


def test_students_saved_together_are_written_in_key_order_as_a_batch_writes_them(school, database_url):
    users = [f"u{number:02}" for number in range(20)]
    for user in reversed(users):
        school.execute("insert into progress.users values (%s, 'c1', 'U', 'e')", [user])
        save(school, user, "q1", "k1", ["b"])
    with psycopg.connect(database_url) as batch, psycopg.connect(database_url) as app:
        batch.execute("set lock_timeout = '5s'")
        write = "update progress.user_progress_stats set updated_at = now() where user_id = %s"
        batch.execute(write, users[:1])
        waiting = blocked_behind(
            school, app, lambda: app.execute("update progress.user_progress set is_mastered = true")
        )
        for user in users[1:]:
            batch.execute(write, [user])
        batch.commit()
        waiting.result()
        app.commit()
    assert_right(school)


def test_a_repeatable_read_transaction_does_not_overwrite_changes_that_it_can_not_see(school, database_url):
    with psycopg.connect(database_url) as one, psycopg.connect(database_url) as two:
        two.execute("set transaction isolation level repeatable read")
        two.execute("select")
        save(one, "ann", "q1", "k1", ["b"])
        one.commit()
        with pytest.raises(psycopg.errors.SerializationFailure):
            save(two, "ann", "q2", "k1", ["b"])
    assert counts(school, "ann") == (1, 0, 3)


def test_a_question_added_to_a_module_being_moved_marks_the_modules_new_cohort(school, database_url):
    with psycopg.connect(database_url) as mover, psycopg.connect(database_url) as author:
        mover.execute("update progress.modules set class_id = 'k2' where id = 'm1b'")
        add = "insert into progress.questions values ('new', 'm1b')"
        waiting = blocked_behind(school, author, lambda: author.execute(add))
        mover.commit()
        school.execute("delete from backfill.stale_marks")
        waiting.result()
        author.commit()
    assert marked(school) == {"c2"}


def test_deleting_a_cohort_waits_for_a_transaction_that_adds_a_question_to_it(school, database_url):
    with psycopg.connect(database_url) as author, psycopg.connect(database_url) as admin:
        author.execute("insert into progress.questions values ('new', 'm1')")
        delete = "delete from progress.cohorts where id = 'c1'"
        waiting = blocked_behind(school, admin, lambda: admin.execute(delete))
        author.commit()
        waiting.result()
        admin.commit()
    assert school.execute("select id from progress.cohorts").fetchall() == [("c2",)]
    assert school.execute("select id from progress.questions").fetchall() == [("q4",)]
