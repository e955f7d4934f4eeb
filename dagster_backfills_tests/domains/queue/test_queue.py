"""The queue's SQL functions: order, fencing, unique keys, retries, cancellation and chains."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from dagster_backfills.domains.queue import queue


def _expire(db, job_id):
    db.execute(
        "update jobs.background_jobs set heartbeat_at = now() - interval '1 hour' where id = %s", [job_id]
    )


def _row(db, job_id):
    return queue.rows(db, "one_job", job_id=job_id)[0]


def test_priority_one_goes_first_and_then_the_oldest(db, registry):
    ids = [queue.enqueue(db, "noop", priority=p, registry=registry) for p in (5, 1, 10, 5, 1)]
    order = [queue.claim(db, "w", 1)[0].id for _ in ids]
    assert order == [ids[1], ids[4], ids[0], ids[3], ids[2]]
    assert queue.claim(db, "w", 1) == []


def test_a_claimed_batch_has_the_first_jobs_in_order(db, registry):
    ids = [queue.enqueue(db, "noop", priority=10 - i, registry=registry) for i in range(9)]
    assert [j.id for j in queue.claim(db, "w", 4)] == ids[:4:-1]


def test_two_claims_at_once_share_nothing(jobs_db, registry):
    with psycopg.connect(jobs_db) as one, psycopg.connect(jobs_db) as two:
        queue.enqueue_many(one, "noop", [{}] * 10, registry=registry)
        one.commit()
        first = queue.claim(one, "one", 6)
        second = queue.claim(two, "two", 6)
        assert len(first) == 6 and len(second) == 4
        assert not {j.id for j in first} & {j.id for j in second}


def test_a_claim_that_is_rolled_back_leaves_the_jobs_waiting(jobs_db, registry):
    with psycopg.connect(jobs_db) as conn:
        queue.enqueue(conn, "noop", registry=registry)
        conn.commit()
        assert len(queue.claim(conn, "w", 5)) == 1
        conn.rollback()
        assert len(queue.claim(conn, "w", 5)) == 1


def test_a_scheduled_job_is_not_claimed_early(db, registry):
    later = queue.enqueue(db, "noop", run_after=datetime.now(UTC) + timedelta(hours=1), registry=registry)
    past = queue.enqueue(db, "noop", run_after=datetime.now(UTC) - timedelta(hours=1), registry=registry)
    assert [j.id for j in queue.claim(db, "w", 5)] == [past]
    db.execute("update jobs.job_queue set run_after = now() - interval '1 second' where job_id = %s", [later])
    assert [j.id for j in queue.claim(db, "w", 5)] == [later]


def test_only_the_attempt_that_holds_a_job_can_move_it(db, registry):
    job_id = queue.enqueue(db, "noop", registry=registry)
    old = queue.claim(db, "one", 1)[0]
    _expire(db, job_id)
    assert queue.take_back_expired(db) == 1
    new = queue.claim(db, "two", 1)[0]
    assert (old.attempt, new.attempt) == (1, 2)
    assert queue.report_progress(db, old, 50, None) is None
    assert queue.renew(db, [old]) == set()
    assert queue.complete(db, [(old, {"by": "old"})]) == set()
    assert queue.fail(db, old, "x", "x", "", True) is None
    assert queue.give_back(db, [old]) == 0
    assert _row(db, job_id)["status"] == "processing"
    assert queue.complete(db, [(new, {"by": "new"})]) == {job_id}
    assert _row(db, job_id)["output_data"] == {"by": "new"}


def test_an_attempt_whose_lease_is_over_can_do_nothing_even_before_anyone_took_the_job_back(db, registry):
    job_id = queue.enqueue(db, "noop", registry=registry)
    job = queue.claim(db, "w", 1)[0]
    _expire(db, job_id)
    assert queue.renew(db, [job]) == set()
    assert queue.report_progress(db, job, 50, None) is None
    assert queue.complete(db, [(job, None)]) == set()
    assert queue.fail(db, job, "x", "x", "", True) is None
    assert _row(db, job_id)["status"] == "processing"


def test_a_renewed_lease_is_not_taken_back(db, registry):
    queue.enqueue(db, "noop", registry=registry)
    job = queue.claim(db, "w", 1)[0]
    before = _row(db, job.id)["heartbeat_at"]
    assert queue.renew(db, [job]) == {job.id}
    assert _row(db, job.id)["heartbeat_at"] > before
    assert queue.take_back_expired(db) == 0


def test_completing_many_jobs_completes_only_those_that_are_held(db, registry):
    queue.enqueue_many(db, "noop", [{}] * 5, registry=registry)
    jobs = queue.claim(db, "w", 5)
    queue.cancel(db, jobs[2].id)
    assert queue.complete(db, [(j, {"n": n}) for n, j in enumerate(jobs)]) == {
        j.id for n, j in enumerate(jobs) if n != 2
    }
    assert queue.complete(db, [(j, None) for j in jobs]) == set()


def test_each_retry_waits_longer_and_retries_run_out(db, registry):
    db.execute("update jobs.queue_settings set retry_base = '10 seconds', retry_cap = '60 seconds'")
    job_id = queue.enqueue(db, "noop", max_retries=4, registry=registry)
    delays = []
    for attempt in range(1, 6):
        job = queue.claim(db, "w", 1)[0]
        assert job.attempt == attempt
        status = queue.fail(db, job, "network", f"lost {attempt}", "trace", True)
        row = _row(db, job_id)
        if status == "pending":
            delays.append((row["run_after"] - row["updated_at"]).total_seconds())
            assert queue.claim(db, "w", 1) == []
            db.execute("update jobs.job_queue set run_after = now() - interval '1 second'")
    assert status == "failed" and row["retry_count"] == 4 and row["completed_at"]
    for delay, plain in zip(delays, [10, 20, 40, 60], strict=True):
        assert 0.49 * plain <= delay <= 1.51 * plain
    assert [(e["attempt"], e["kind"], e["message"]) for e in row["error_data"]] == [
        (n, "network", f"lost {n}") for n in range(1, 6)
    ]
    assert queue.claim(db, "w", 1) == []


def test_a_permanent_failure_spends_no_retry(db, registry):
    job_id = queue.enqueue(db, "noop", registry=registry)
    assert queue.fail(db, queue.claim(db, "w", 1)[0], "permanent", "no", "", False) == "failed"
    assert _row(db, job_id)["retry_count"] == 0


def test_the_record_of_errors_keeps_the_newest_fifty(db, registry):
    job_id = queue.enqueue(db, "noop", max_retries=60, registry=registry)
    for n in range(55):
        db.execute("update jobs.job_queue set run_after = null")
        queue.fail(db, queue.claim(db, "w", 1)[0], "x", f"error {n}", "", True)
    errors = _row(db, job_id)["error_data"]
    assert [e["message"] for e in errors] == [f"error {n}" for n in range(5, 55)]


def test_a_failed_job_retried_by_hand_has_all_its_retries_again(db, registry):
    ids = queue.enqueue_many(db, "noop", [{}] * 3, registry=registry)
    other = queue.enqueue(db, "echo", registry=registry)
    for job in queue.claim(db, "w", 10):
        queue.fail(db, job, "x", "x", "", False)
    assert queue.retry(db, ids=[ids[0]]) == 1
    assert queue.retry(db, ids=[ids[0]]) == 0
    assert queue.retry(db, job_type="noop") == 2
    assert {j.id for j in queue.claim(db, "w", 10)} == set(ids)
    assert _row(db, other)["status"] == "failed"


@pytest.mark.parametrize("state", ["pending", "later", "processing"])
def test_cancel_ends_a_job_that_has_not_ended(db, registry, state):
    later = datetime.now(UTC) + timedelta(hours=1) if state == "later" else None
    job_id = queue.enqueue(db, "noop", run_after=later, registry=registry)
    held = queue.claim(db, "w", 1)
    assert queue.cancel(db, job_id, "not wanted") == ("pending" if state == "later" else "processing")
    row = _row(db, job_id)
    assert (row["status"], row["progress_message"]) == ("cancelled", "not wanted")
    assert db.execute("select count(*) from jobs.job_queue").fetchone() == (0,)
    for job in held:
        assert queue.report_progress(db, job, 10, None) == "cancelled"
        assert queue.complete(db, [(job, None)]) == set()


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_cancel_leaves_a_job_that_has_ended(db, registry, end):
    job_id = queue.enqueue(db, "noop", registry=registry)
    job = queue.claim(db, "w", 1)[0]
    if end == "completed":
        queue.complete(db, [(job, None)])
    elif end == "failed":
        queue.fail(db, job, "x", "x", "", False)
    else:
        queue.cancel(db, job_id)
    assert queue.cancel(db, job_id) == end
    assert _row(db, job_id)["status"] == end
    assert queue.cancel(db, uuid4()) is None


def test_a_job_cancelled_while_a_claim_takes_it_is_not_run(jobs_db, registry):
    with psycopg.connect(jobs_db) as claimer, psycopg.connect(jobs_db, autocommit=True) as canceller:
        job_id = queue.enqueue(claimer, "noop", registry=registry)
        claimer.commit()
        claimer.execute("select 1 from jobs.job_queue for update")
        assert queue.cancel(canceller, job_id) == "pending"
        assert queue.claim(claimer, "w", 1) == []
        claimer.commit()
        assert canceller.execute("select count(*) from jobs.job_queue").fetchone() == (0,)


def test_returned_jobs_are_due_at_once_and_keep_their_place(db, registry):
    ids = [queue.enqueue(db, "noop", registry=registry) for _ in range(3)]
    held = queue.claim(db, "w", 2)
    assert queue.give_back(db, held) == 2
    again = queue.claim(db, "w", 3)
    assert [j.id for j in again] == ids
    assert [(j.attempt, j.retry_count) for j in again] == [(2, 0), (2, 0), (1, 0)]


def test_a_job_that_kills_every_worker_finally_fails(db, registry):
    db.execute("update jobs.queue_settings set max_lost_leases = 3")
    job_id = queue.enqueue(db, "noop", registry=registry)
    for _ in range(3):
        queue.claim(db, "w", 1)
        _expire(db, job_id)
        assert queue.take_back_expired(db) == 1
    row = _row(db, job_id)
    assert row["status"] == "failed" and [e["kind"] for e in row["error_data"]] == ["lease_lost"] * 3
    assert row["retry_count"] == 0


def test_invalid_status_transitions_are_rejected(db, registry):
    job_id = queue.enqueue(db, "noop", registry=registry)
    finish = "update jobs.background_jobs set status = 'completed', completed_at = now(), progress_percentage = 100"
    with pytest.raises(psycopg.errors.CheckViolation, match="pending and can't become completed"):
        db.execute(finish)
    with pytest.raises(psycopg.errors.CheckViolation, match="attempt"):
        db.execute("update jobs.background_jobs set attempt = 5")
    job = queue.claim(db, "w", 1)[0]
    queue.complete(db, [(job, None)])
    for status in ("pending", "failed", "cancelled", "processing"):
        with pytest.raises(psycopg.errors.CheckViolation):
            db.execute("update jobs.background_jobs set status = %s", [status])
    assert _row(db, job_id)["status"] == "completed"


def test_every_change_is_announced(jobs_db, db, registry):
    with psycopg.connect(jobs_db, autocommit=True) as listener:
        listener.execute("listen jobs_new")
        listener.execute("listen jobs_changed")
        job_id = queue.enqueue(db, "noop", registry=registry)
        job = queue.claim(db, "w", 1)[0]
        queue.report_progress(db, job, 40, "half way")
        queue.complete(db, [(job, None)])
        queue.enqueue_many(db, "noop", [{}] * 50, registry=registry)
        heard = [(n.channel, n.payload) for n in listener.notifies(timeout=5, stop_after=7)]
    import json

    assert [c for c, _ in heard] == ["jobs_new"] + ["jobs_changed"] * 4 + ["jobs_new", "jobs_changed"]
    changes = [json.loads(p) for c, p in heard if c == "jobs_changed"]
    assert changes[0] == {"id": str(job_id), "status": "pending"}
    # Every login may listen: what the job says of its work is for who may read the row.
    assert changes[2] == {"id": str(job_id), "status": "processing", "progress": 40}
    assert changes[3] == {"id": str(job_id), "status": "completed"}
    assert changes[4] == {"status": "pending", "count": 50}


def test_clean_up_removes_what_ended_long_ago_and_nothing_else(db, registry):
    queue.enqueue_many(db, "noop", [{}] * 6, registry=registry)
    jobs = queue.claim(db, "w", 5)
    queue.complete(db, [(jobs[0], None), (jobs[1], None)])
    queue.fail(db, jobs[2], "x", "x", "", False)
    queue.cancel(db, jobs[3].id)
    old = "update jobs.background_jobs set completed_at = now() - interval '31 days' where id = any(%s)"
    db.execute(old, [[jobs[0].id, jobs[2].id, jobs[3].id]])
    assert list(queue.clean_up(db, max_jobs=2)) == [2, 1]
    left = db.execute("select status, count(*) from jobs.background_jobs group by 1 order by 1").fetchall()
    assert left == [("completed", 1), ("pending", 1), ("processing", 1)]
    assert list(queue.clean_up(db, older_than=timedelta(0))) == [1]


def test_the_views_say_what_is_stuck_failing_and_active(db, registry):
    waits = queue.enqueue(db, "noop", registry=registry)
    db.execute("update jobs.background_jobs set created_at = now() - interval '11 minutes'")
    queue.enqueue(db, "noop", registry=registry)
    later = queue.enqueue(db, "noop", run_after=datetime.now(UTC) + timedelta(hours=1), registry=registry)
    assert [(r["id"], r["reason"]) for r in queue.rows(db, "stuck_jobs")] == [(waits, "waits")]
    job = queue.claim(db, "w", 1)[0]
    assert queue.rows(db, "stuck_jobs") == []
    _expire(db, job.id)
    assert [r["reason"] for r in queue.rows(db, "stuck_jobs")] == ["past its lease"]
    active = queue.rows(db, "active_jobs", max_rows=10)
    assert [r["status"] for r in active] == ["processing", "pending", "pending"] and active[2]["id"] == later
    [noop] = [m for m in queue.rows(db, "metrics") if m["job_type"] == "noop"]
    assert (noop["waiting"], noop["scheduled"], noop["processing"]) == (1, 1, 1)
    assert db.execute("select count(*) from jobs.repeatedly_failing_jobs").fetchone() == (0,)


def test_durations_and_failures_are_counted_by_type(db, registry):
    queue.enqueue_many(db, "noop", [{}] * 3, registry=registry)
    jobs = queue.claim(db, "w", 3)
    db.execute("update jobs.background_jobs set started_at = now() - interval '2 seconds'")
    queue.complete(db, [(jobs[0], None), (jobs[1], None)])
    queue.fail(db, jobs[2], "x", "broken", "", False)
    [noop] = [m for m in queue.rows(db, "metrics") if m["job_type"] == "noop"]
    assert (noop["completed_last_hour"], noop["failed_last_hour"]) == (2, 1) and noop["mean_seconds"] >= 2
    row = db.execute("select job_type, jobs, mean_seconds >= 2 from jobs.average_durations").fetchone()
    assert row == ("noop", 2, True)
    assert queue.rows(db, "types_failing", window_seconds=3600, many=2) == []
    [failing] = queue.rows(db, "types_failing", window_seconds=3600, many=1)
    assert (failing["job_type"], failing["failed"], failing["message"]) == ("noop", 1, "broken")


def test_every_monitoring_query_and_view_runs_as_it_stands(db, registry, project_root):
    stuck = queue.enqueue(db, "noop", registry=registry)
    db.execute("update jobs.background_jobs set created_at = now() - interval '1 hour'")
    files = sorted((project_root / "sql" / "monitoring").glob("jobs_*.sql"))
    found = {f.stem: db.execute(f.read_text()).fetchall() for f in files}
    assert [row[0] for row in found["jobs_stuck"]] == [stuck]
    assert db.execute("select id from jobs.active_jobs").fetchall() == [(stuck,)]
    assert found["jobs_inconsistent"] == []
    assert len(db.execute("select * from jobs.queue_metrics").fetchall()) > 3
    assert db.execute("select * from jobs.average_durations").fetchall() == []
    db.execute("delete from jobs.job_queue")
    [inconsistent] = [f for f in files if f.stem == "jobs_inconsistent"]
    assert [row[0] for row in db.execute(inconsistent.read_text())] == [stuck]
