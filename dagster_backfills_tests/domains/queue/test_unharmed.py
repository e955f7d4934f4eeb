"""No single job, notification or row can stop the worker or other jobs."""

import json
import random
import string
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.registry import JobType, Registry, background_job_types
from dagster_backfills.domains.queue.worker import Worker
from dagster_backfills_tests.domains.queue.test_worker import QUICK, until, working

GOOD = 20


def _row(db, job_id):
    return queue.rows(db, "one_job", job_id=job_id)[0]


def _last_error(db, job_id):
    row = _row(db, job_id)
    return row["status"], row["error_data"][-1]["kind"], row["error_data"][-1]["message"]


@pytest.fixture
def work_off(jobs_db, db):
    """Process an unusual `echo` job among normal ones, which must all complete. Returns the ID of the unusual job."""

    def run(odd_output=None, prepare=lambda job_id: None):
        registry = Registry(
            [JobType("noop", lambda job: {"fine": True}), JobType("echo", lambda job: odd_output)]
        )
        good = queue.enqueue_many(db, "noop", [{}] * GOOD, registry=registry)
        odd = queue.enqueue(db, "echo", max_retries=0, priority=1, registry=registry)
        prepare(odd)
        Worker(jobs_db, registry, QUICK).run()
        assert {_row(db, i)["status"] for i in good} == {"completed"}
        return odd

    return run


@pytest.mark.parametrize(
    "step",
    [
        {"job_type": "noop", "max_retries": -1},
        {"job_type": "noop", "max_retries": "many"},
        {"job_type": "noop", "input_data": ["x"]},
        {"input_data": {}},
    ],
)
def test_a_next_step_that_can_not_be_created_fails_only_its_own_job(db, work_off, step):
    def put_past_the_checks(job_id):
        db.execute(
            "update jobs.background_jobs set then_steps = %s where id = %s", [json.dumps([step]), job_id]
        )

    status, kind, message = _last_error(db, work_off(prepare=put_past_the_checks))
    assert (status, kind) == ("failed", "invalid_output")
    assert message.startswith("The handler finished, but its result can't be stored: ")


def test_an_output_over_a_server_limit_is_not_resent_endlessly(db, work_off):
    db.execute("create index on jobs.background_jobs ((output_data ->> 'long'))")
    long = "".join(random.Random(1).choices(string.printable[:90], k=20_000))
    status, kind, message = _last_error(db, work_off({"long": long}))
    assert (status, kind) == ("failed", "invalid_output") and "index row" in message


_WHEN_STORED = """
create function odd() returns trigger language plpgsql as $$ begin {} return new; end $$;
create trigger odd before update on jobs.background_jobs
for each row when (new.output_data ? 'odd') execute function odd()
"""


def test_a_statement_timeout_of_the_role_fails_one_job_and_not_the_worker(jobs_db, db, work_off):
    name = sql.Identifier(db.info.dbname)
    db.execute(sql.SQL("alter database {} set statement_timeout = '1s'").format(name))
    db.execute("update jobs.queue_settings set lease = '60 seconds'")
    db.execute(_WHEN_STORED.format("perform pg_sleep(60);"))
    status, _, message = _last_error(db, work_off({"odd": 1}))
    assert status == "failed" and "statement timeout" in message


def test_an_output_that_always_breaks_the_connection_fails_its_job(db, work_off):
    db.execute(_WHEN_STORED.format("perform pg_terminate_backend(pg_backend_pid());"))
    status, kind, message = _last_error(db, work_off({"odd": 1}))
    assert (status, kind) == ("failed", "invalid_output") and "terminat" in message


def test_an_error_that_an_application_raises_for_one_job_costs_that_job(db, work_off):
    db.execute(_WHEN_STORED.format("raise exception 'not this one' using errcode = 'AP001';"))
    status, kind, message = _last_error(db, work_off({"odd": 1}))
    assert (status, kind) == ("failed", "invalid_output") and "can't be stored: not this one" in message


@pytest.mark.programs
@pytest.mark.parametrize(
    "odd",
    ['{"title": "a", "transcript": "b", "duration": 1e5000}', '{"title": ' + "[" * 3000 + "]" * 3000 + "}"],
)
def test_a_row_that_can_not_be_read_fails_only_its_job_and_can_be_shown(jobs_db, db, odd):
    given = {
        "title": "a",
        "transcript": "Open it. Close it. Lock it. Sign it. Send it. Go home.",
        "duration": 9,
    }
    ids = [queue.enqueue(db, "sop_generation", given, priority=p) for p in (5, 1, 5)]
    db.execute("update jobs.background_jobs set input_data = %s where id = %s", [odd, ids[1]])
    Worker(jobs_db, background_job_types({}), QUICK).run()
    assert [_row(db, i)["status"] for i in ids] == ["completed", "failed", "completed"]
    _, kind, message = _last_error(db, ids[1])
    assert kind == "invalid_input" and message.startswith("sop_generation: the input can't be read: ")
    assert _row(db, ids[1])["attempt"] == 1 and len(_row(db, ids[1])["input_data"]) > 3000


def test_a_forged_notification_does_not_stop_a_job(jobs_db, db, registry, status_of):
    with working(jobs_db, registry) as worker:
        job_id = queue.enqueue(db, "wait", registry=registry)
        until(lambda: _row(db, job_id)["progress_percentage"] == 10)
        before = worker._heartbeat._renewed_at
        for payload in (str(job_id), "garbage", "", str(uuid4()), "x" * 7000):
            db.execute(
                "select pg_notify('jobs_cancelled', %s), pg_notify('jobs_new', %s)", [payload, payload]
            )
        other = queue.enqueue(db, "noop", registry=registry)
        until(lambda: status_of(other) == "completed")
        until(lambda: worker._heartbeat._renewed_at > before)
        assert (status_of(job_id), _row(db, job_id)["attempt"], worker.tally.cancelled) == (
            "processing",
            1,
            0,
        )
        queue.cancel(db, job_id)
        until(lambda: worker.tally.cancelled == 1)


@pytest.mark.parametrize(("reported", "stored"), [(None, 30), (150, 100), (-5, 0), (40, 40)])
def test_stored_progress_and_its_notification_agree(jobs_db, db, registry, reported, stored):
    job_id = queue.enqueue(db, "noop", registry=registry)
    job = queue.claim(db, "w", 1)[0]
    queue.report_progress(db, job, 30, "begun")
    with psycopg.connect(jobs_db, autocommit=True) as listener:
        listener.execute("listen jobs_changed")
        assert queue.report_progress(db, job, reported, "at work") == "processing"
        [notice] = listener.notifies(timeout=5, stop_after=1)
    row = _row(db, job_id)
    assert (row["progress_percentage"], row["progress_message"]) == (stored, "at work")
    assert json.loads(notice.payload)["progress"] == stored


def test_a_handler_may_report_a_message_alone(jobs_db, db):
    def handler(job):
        job.progress(20, "first")
        job.progress(None, "second")
        return None

    registry = Registry([JobType("noop", handler)])
    job_id = queue.enqueue(db, "noop", registry=registry)
    assert Worker(jobs_db, registry, QUICK).run().completed == 1
    assert _row(db, job_id)["status"] == "completed"
