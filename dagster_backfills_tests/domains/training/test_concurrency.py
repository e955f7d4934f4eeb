"""Killed runs, concurrent runs, and members that change during a run."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

_WAITING = """
select count(*) from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock' and pid <> pg_backend_pid()
"""


@pytest.fixture
def school(training):
    """Five organizations of two members each."""
    for number in range(1, 6):
        training.add_organization(f"org_{number}", [f"mem_{number}a", f"mem_{number}b"], day=number)
    return training


def _wait_until(condition, what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


@contextmanager
def _held_up(make_connection, member: str) -> Iterator[Callable[[], None]]:
    """Blocks writes for this member until the yielded function is called or the context ends."""
    holder = make_connection()
    holder.execute("begin")
    holder.execute("select from training.members where id = %s for update", [member])

    def let_go() -> None:
        holder.execute("commit")

    try:
        yield let_go
    finally:
        let_go()


def _alone(school, work: Callable[[Any], Any]) -> Any:
    """Uses a separate Dagster instance, because one in memory does not support two threads."""
    with dg.DagsterInstance.ephemeral() as instance:
        return work(replace(school, instance=instance))


@contextmanager
def _running(school, **settings) -> Iterator[threading.Thread]:
    """A run in a thread, which has ended when the context ends."""
    school.settings = {"lock_timeout": 60.0, **settings}
    thread = threading.Thread(target=_alone, args=[school, lambda world: world.fill(which="all")])
    thread.start()
    try:
        yield thread
    finally:
        thread.join(timeout=120)
        assert not thread.is_alive()


@pytest.mark.programs
def test_after_a_kill_nothing_is_lost_and_nothing_done_twice(school, make_connection):
    with _held_up(make_connection, "mem_3a"):
        worker = subprocess.Popen(
            [sys.executable, "-m", "dagster_backfills_tests.domains.training.worker", school.url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_until(lambda: school.rows(_WAITING)[0][0] == 1, "the run to wait in org_3")
        finally:
            worker.kill()
            worker.wait()
    _wait_until(
        lambda: (
            school.rows(
                "select count(*) from pg_stat_activity where application_name = 'dagster_backfills'"
                " and datname = current_database()"
            )
            == [(0,)]
        ),
        "the server to notice",
    )
    done = [bool(school.records(f"org_{number}")) for number in range(1, 6)]
    assert done == [True, True, False, False, False]
    first = set(school.rows("select id, backfill_id from training.employee_training_video_completions"))
    assert school.due == {"org_3", "org_4", "org_5"}

    run = school.fill()
    assert run.success
    assert all(school.progress(f"org_{number}") == (2, 6, 0, 0) for number in range(1, 6))
    rows = set(school.rows("select id, backfill_id from training.employee_training_video_completions"))
    assert first < rows and len(rows) == 30
    assert {backfill for _, backfill in rows - first} == {run.run_id}
    assert all(each.passed for each in school.check().values())


def test_two_concurrent_runs_over_the_same_organizations_create_each_record_once(school, make_connection):
    school.settings = {"lock_timeout": 60.0, "batch_units": 2, "target_seconds": 0}
    with _held_up(make_connection, "mem_1a"):
        results: list[bool] = []
        threads = [
            threading.Thread(
                target=lambda: results.append(_alone(school, lambda world: world.fill(which="all").success))
            )
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        _wait_until(lambda: school.rows(_WAITING)[0][0] == 2, "both runs to be in org_1")
    for thread in threads:
        thread.join(timeout=120)
    assert results == [True, True]
    assert school.rows("select count(*) from training.employee_training_video_completions") == [(30,)]
    assert school.rows(
        "select sum(rows_inserted) from backfill.batches where asset like '%%completions'"
    ) == [(30,)]
    assert school.failures() == []
    assert all(each.passed for each in school.check().values())


def test_members_deleted_or_deactivated_during_a_run_do_not_affect_others(school, make_connection):
    with _held_up(make_connection, "mem_1a") as let_go, _running(school):
        _wait_until(lambda: school.rows(_WAITING)[0][0] == 1, "the run to be in the middle")
        school.conn.execute("update training.members set deactivated = true where id = 'mem_4a'")
        changer = make_connection()
        changer.execute("delete from training.members where id = 'mem_5a'")
        school.add_member("org_2", "mem_2c")
        let_go()
    assert school.failures() == []
    school.settings = {}
    school.fill()
    assert {m for m, _ in school.records("org_5")} == {"mem_5b"}
    assert {m for m, _ in school.records("org_2")} == {"mem_2a", "mem_2b", "mem_2c"}
    assert school.progress("org_4") == (1, 3, 0, 0)
    assert school.progress("org_5") == (1, 3, 0, 0)
    assert all(each.passed for each in school.check().values())


def test_an_organization_deleted_during_a_run_does_not_affect_others(school, make_connection):
    with _held_up(make_connection, "mem_1a") as let_go, _running(school, batch_units=1, target_seconds=0):
        _wait_until(lambda: school.rows(_WAITING)[0][0] == 1, "the run to be in org_1")
        school.conn.execute("delete from training.organizations where id = 'org_4'")
        let_go()
    assert school.failures() == []
    assert school.progress("org_5") == (2, 6, 0, 0)
    assert school.progress("org_4") is None


def test_a_rollback_and_a_run_over_the_same_organization_take_turns(school, make_connection):
    first = school.fill().run_id
    school.add_member("org_1", "mem_1c")
    with _held_up(make_connection, "mem_1c") as let_go:
        with _running(school):
            _wait_until(lambda: school.rows(_WAITING)[0][0] == 1, "the run to be in org_1")
            undo = threading.Thread(
                target=_alone, args=[school, lambda world: world.roll_back(backfill=first, dry_run=False)]
            )
            undo.start()
            _wait_until(lambda: school.rows(_WAITING)[0][0] == 2, "the rollback to wait for the run")
            let_go()
        undo.join(timeout=120)
    assert school.records("org_1") == {("mem_1c", f"sat-{n}") for n in (1, 2, 3)}
    assert school.progress("org_1") == (3, 3, 0, 0)
    assert school.failures() == []
