"""The worker, run in this process: how it handles every way a handler can end."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager

import psycopg
import pytest

from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.registry import JobType, Registry
from dagster_backfills.domains.queue.worker import Worker, WorkerOptions

QUICK = WorkerOptions(concurrency=4, idle_seconds=0.1, max_seconds=60, poll_seconds=0.1, grace_seconds=0.3)


def _row(db, job_id):
    return queue.rows(db, "one_job", job_id=job_id)[0]


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


@contextmanager
def working(url, registry, **options):
    """A worker running in a thread, stopped at the end of the block."""
    worker = Worker(url, registry, WorkerOptions(**{**vars(QUICK), "idle_seconds": 60, **options}))
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(30)
        assert not thread.is_alive()


def test_a_worker_completes_what_waits_and_ends_when_the_queue_stays_empty(jobs_db, db, registry):
    ids = queue.enqueue_many(db, "echo", [{"n": n} for n in range(300)], registry=registry)
    tally = Worker(jobs_db, registry, QUICK).run()
    assert (tally.completed, tally.by_type) == (300, {"echo": 300})
    outputs = db.execute(
        "select output_data -> 'echo' ->> 'n' from jobs.background_jobs order by array_position(%s, id)",
        [ids],
    ).fetchall()
    assert [int(o[0]) for o in outputs] == list(range(300))
    assert db.execute("select count(*) from jobs.job_queue").fetchone() == (0,)


def test_an_idle_worker_is_woken_by_a_new_job(jobs_db, db, registry, status_of):
    with working(jobs_db, registry, poll_seconds=30) as worker:
        until(lambda: worker._heartbeat._connection._conn is not None)
        time.sleep(0.3)
        job_id = queue.enqueue(db, "noop", registry=registry)
        until(lambda: status_of(job_id) == "completed")


@pytest.mark.programs
def test_a_handler_in_a_process_returns_its_output(jobs_db, db, registry):
    job_id = queue.enqueue(db, "echo_process", {"a": [1, "ü"]}, registry=registry)
    Worker(jobs_db, registry, QUICK).run()
    assert _row(db, job_id)["output_data"] == {"echo": {"a": [1, "ü"]}}


@pytest.mark.programs
@pytest.mark.parametrize("kind", ["fail", "fail_process"])
def test_a_failing_handler_is_retried_and_every_attempt_is_on_record(jobs_db, db, registry, kind):
    job_id = queue.enqueue(db, kind, {"message": "broken pipe"}, max_retries=2, registry=registry)
    tally = Worker(jobs_db, registry, QUICK).run()
    row = _row(db, job_id)
    assert (row["status"], row["attempt"], row["retry_count"]) == ("failed", 3, 2)
    assert (tally.retried, tally.failed) == (2, 1)
    assert [(e["attempt"], e["kind"], e["message"]) for e in row["error_data"]] == [
        (n, "RuntimeError", "broken pipe") for n in (1, 2, 3)
    ]
    assert all("always_fail" in e["trace"] for e in row["error_data"])


def test_a_permanent_error_is_not_retried(jobs_db, db, registry):
    job_id = queue.enqueue(db, "fail_for_good", registry=registry)
    Worker(jobs_db, registry, QUICK).run()
    row = _row(db, job_id)
    assert (row["status"], row["attempt"], row["error_data"][0]["kind"]) == ("failed", 1, "hopeless")


def test_a_type_that_the_worker_does_not_know_fails_at_once_and_says_so(jobs_db, db, registry):
    db.execute("insert into jobs.job_types (job_type) values ('elsewhere')")
    row = db.execute("select jobs.enqueue_background_job('elsewhere')").fetchone()
    Worker(jobs_db, registry, QUICK).run()
    job = _row(db, row[0])
    assert (job["status"], job["attempt"], job["error_data"][0]["kind"]) == ("failed", 1, "unknown_type")
    assert job["error_data"][0]["message"].startswith("Unknown job type: elsewhere. Known: crash, ")


def test_an_invalid_input_that_bypassed_validation_fails_permanently_naming_the_field(jobs_db, db):
    from dagster_backfills.domains.queue.registry import background_job_types

    job_id = queue.enqueue(db, "transcription", {"audio_url": "file:///x.wav"})
    db.execute("update jobs.background_jobs set input_data = '{\"audio\": 1}'")
    Worker(jobs_db, background_job_types(), QUICK).run()
    row = _row(db, job_id)
    assert (row["status"], row["attempt"], row["error_data"][0]["kind"]) == ("failed", 1, "invalid_input")
    assert "field audio_url: field required" in row["error_data"][0]["message"]


def test_an_output_that_is_no_json_fails_its_job_and_no_other(jobs_db, db):
    registry = Registry(
        [
            JobType("noop", lambda job: {"fine": True}),
            JobType("echo", lambda job: {"bad": "nul \0 byte"}),
            JobType("fail", lambda job: {"bad": object()}),
            JobType("wait", lambda job: ["a list"]),
        ]
    )
    good = queue.enqueue_many(db, "noop", [{}] * 20, registry=registry)
    bad = [queue.enqueue(db, kind, registry=registry) for kind in ("echo", "fail", "wait")]
    Worker(jobs_db, registry, QUICK).run()
    assert {_row(db, i)["status"] for i in good} == {"completed"}
    assert [(_row(db, i)["status"], _row(db, i)["error_data"][0]["kind"]) for i in bad] == [
        ("failed", "invalid_output")
    ] * 3


@pytest.mark.programs
def test_a_process_that_crashes_is_a_failed_attempt(jobs_db, db, registry):
    job_id = queue.enqueue(db, "crash", max_retries=1, registry=registry)
    Worker(jobs_db, registry, QUICK).run()
    row = _row(db, job_id)
    assert (row["status"], row["attempt"]) == ("failed", 2)
    assert row["error_data"][0]["message"] == "The handler's process ended with exit code 7."


def _ended(pid_file) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.programs
def test_a_process_that_exceeds_its_timeout_is_killed(jobs_db, db, registry, tmp_path):
    pid_file = tmp_path / "pid"
    job_id = queue.enqueue(db, "slow_process", {"pid_file": str(pid_file)}, max_retries=0, registry=registry)
    Worker(jobs_db, registry, QUICK).run()
    assert _row(db, job_id)["error_data"][0]["kind"] == "timeout"
    assert not pid_file.exists() or _ended(pid_file)


@pytest.mark.programs
@pytest.mark.parametrize("kind", ["wait", "wait_process"])
def test_cancel_stops_a_handler_at_its_next_progress_report(jobs_db, db, registry, kind, status_of):
    with working(jobs_db, registry) as worker:
        job_id = queue.enqueue(db, kind, registry=registry)
        until(lambda: _row(db, job_id)["progress_message"] == "still here")
        assert queue.cancel(db, job_id, "enough") == "processing"
        assert status_of(job_id) == "cancelled"
        until(lambda: worker.tally.cancelled == 1)
    row = _row(db, job_id)
    assert (row["status"], row["attempt"], row["error_data"]) == ("cancelled", 1, None)


@pytest.mark.programs
def test_a_process_that_ignores_its_cancellation_is_killed_and_the_others_continue(
    jobs_db, db, registry, tmp_path
):
    pid_file = tmp_path / "pid"
    with working(jobs_db, registry) as worker:
        deaf = queue.enqueue(db, "deaf_process", {"pid_file": str(pid_file)}, registry=registry)
        until(lambda: pid_file.exists() and pid_file.read_text())
        queue.cancel(db, deaf)
        until(lambda: _ended(pid_file))
        until(lambda: worker.tally.cancelled == 1)
        other = queue.enqueue(db, "noop", registry=registry)
        until(lambda: _row(db, other)["status"] == "completed")
    assert _row(db, deaf)["status"] == "cancelled"


def test_a_thread_that_ignores_its_cancellation_is_abandoned_and_replaced(jobs_db, db, registry, tmp_path):
    files = [tmp_path / str(n) for n in range(2)]
    with working(jobs_db, registry, concurrency=2) as worker:
        deaf = [queue.enqueue(db, "deaf", {"pid_file": str(f)}, registry=registry) for f in files]
        until(lambda: all(f.exists() for f in files))
        for job_id in deaf:
            queue.cancel(db, job_id)
        other = queue.enqueue(db, "noop", registry=registry)
        until(lambda: _row(db, other)["status"] == "completed")
        until(lambda: worker.tally.cancelled == 2)
    assert {_row(db, i)["status"] for i in deaf} == {"cancelled"}


@pytest.mark.programs
def test_stopping_a_worker_gives_its_jobs_back_and_ends_their_processes(jobs_db, db, registry, tmp_path):
    pid_file = tmp_path / "pid"
    with working(jobs_db, registry, concurrency=2):
        deaf = queue.enqueue(db, "deaf_process", {"pid_file": str(pid_file)}, registry=registry)
        wait = queue.enqueue(db, "wait", registry=registry)
        until(lambda: pid_file.exists() and pid_file.read_text())
        until(lambda: _row(db, wait)["status"] == "processing")
    assert _ended(pid_file)
    for job_id in (deaf, wait):
        row = _row(db, job_id)
        assert (row["status"], row["retry_count"], row["error_data"]) == ("pending", 0, None)
    assert {j.id for j in queue.claim(db, "w", 5)} == {deaf, wait}


def test_an_exception_in_the_main_thread_gives_everything_back(jobs_db, db, registry):
    class Interrupted(BaseException):
        pass

    def interrupt(result):
        raise Interrupted

    waits = [queue.enqueue(db, "wait", registry=registry) for _ in range(3)]
    queue.enqueue(db, "noop", registry=registry)
    queue.enqueue_many(db, "wait", [{}] * 20, registry=registry)
    with pytest.raises(Interrupted):
        Worker(jobs_db, registry, QUICK, on_result=interrupt).run()
    assert {_row(db, i)["status"] for i in waits} == {"pending"}
    assert db.execute("select count(*) from jobs.background_jobs where status = 'processing'").fetchone() == (
        0,
    )


def test_a_worker_ends_when_its_time_is_up_though_work_waits(jobs_db, db, registry):
    ids = queue.enqueue_many(db, "wait", [{}] * 10, registry=registry)
    options = WorkerOptions(concurrency=2, max_seconds=0.5, finish_seconds=0.2, grace_seconds=0.2)
    Worker(jobs_db, registry, options).run()
    assert {_row(db, i)["status"] for i in ids} == {"pending"}


@pytest.mark.programs
def test_long_jobs_that_were_prefetched_are_returned_for_other_workers(jobs_db, db, registry):
    queue.enqueue_many(db, "noop", [{}] * 1000, priority=1, registry=registry)
    queue.enqueue_many(db, "wait_process", [{}] * 50, registry=registry)
    with working(jobs_db, registry, concurrency=2):
        count = "select count(*) from jobs.background_jobs where job_type = 'wait_process' and status = 'processing'"

        def only_what_runs() -> bool:
            seen = []
            for _ in range(10):
                seen.append(db.execute(count).fetchone())
                time.sleep(0.05)
            return set(seen) == {(2,)}

        until(only_what_runs)


@pytest.mark.programs
def test_an_error_whose_text_holds_a_secret_is_stored_without_it(jobs_db, db, registry, monkeypatch):
    monkeypatch.setenv("MUX_TOKEN_SECRET", "correct-horse-battery")
    message = "401 for correct-horse-battery at postgresql://bob:hunter22@db/x, Authorization: Bearer abcdef123456789"
    for kind in ("fail", "fail_process"):
        job_id = queue.enqueue(db, kind, {"message": message}, max_retries=0, registry=registry)
        Worker(jobs_db, registry, QUICK).run()
        stored = str(_row(db, job_id)["error_data"])
        assert "401 for ***" in stored
        for secret in ("correct-horse-battery", "hunter22", "abcdef123456789"):
            assert secret not in stored


def test_a_worker_reconnects_after_its_connections_were_cut(jobs_db, db, registry):
    with working(jobs_db, registry) as worker:
        first = queue.enqueue(db, "noop", registry=registry)
        until(lambda: _row(db, first)["status"] == "completed")
        db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid != pg_backend_pid()"
        )
        ids = queue.enqueue_many(db, "noop", [{}] * 100, registry=registry)
        until(lambda: {_row(db, i)["status"] for i in ids} == {"completed"})
        assert worker.tally.lost == 0


@pytest.mark.programs
def test_progress_reaches_the_table_while_the_job_runs(jobs_db, db, registry):
    with working(jobs_db, registry), psycopg.connect(jobs_db, autocommit=True) as listener:
        listener.execute("listen jobs_changed")
        job_id = queue.enqueue(db, "wait_process", registry=registry)
        until(lambda: _row(db, job_id)["progress_percentage"] == 10)
        heard = [n.payload for n in listener.notifies(timeout=2, stop_after=3)]
    assert any('"progress" : 10' in p and str(job_id) in p for p in heard)


def test_text_that_postgres_can_not_take_fails_its_job_and_not_the_worker(jobs_db, db, registry):
    job_id = queue.enqueue(db, "fail", {}, max_retries=0, registry=registry)
    bad = Registry(
        [*registry, JobType("fail", lambda job: (_ for _ in ()).throw(ValueError("nul \0, half \ud800")))]
    )
    other = queue.enqueue(db, "noop", registry=registry)
    Worker(jobs_db, bad, QUICK).run()
    assert _row(db, job_id)["error_data"][0]["message"] == "nul , half ?"
    assert _row(db, other)["status"] == "completed"


def test_a_worker_whose_thread_broke_ends_with_its_error(jobs_db, db, registry):
    job_id = queue.enqueue(db, "noop", registry=registry)
    db.execute("drop function jobs.complete_jobs")
    with pytest.raises(psycopg.errors.UndefinedFunction):
        Worker(jobs_db, registry, QUICK).run()
    assert _row(db, job_id)["status"] == "pending"
