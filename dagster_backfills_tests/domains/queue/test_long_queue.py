"""A long queue costs a worker no more than a short one, measured in database pages read."""

from datetime import UTC, datetime, timedelta

import pytest

from dagster_backfills.domains.queue import queue

MANY = 8_000


def _pages(db, statement, **values) -> int:
    """The pages that a statement of queries.sql reads, including the functions that it calls."""
    sql = "explain (analyze, buffers, format json) " + queue.STATEMENTS[statement]
    plan = db.execute(sql, values).fetchone()[0][0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def _fill(db, registry, count):
    queue.enqueue_many(db, "noop", [{}] * count, registry=registry)
    later = datetime.now(UTC) + timedelta(days=1)
    queue.enqueue_many(db, "noop", [{}] * count, priority=1, run_after=later, registry=registry)
    db.execute("vacuum analyze jobs.background_jobs, jobs.job_queue")


@pytest.mark.parametrize("analyzed", [True, False])
def test_many_due_and_scheduled_jobs_do_not_slow_a_claim(db, registry, analyzed):
    _fill(db, registry, 100)
    queue.claim(db, "w", 10)
    short = _pages(db, "claim", worker="w", max_jobs=10)
    _fill(db, registry, MANY)
    if not analyzed:
        db.execute("delete from pg_statistic where starelid in ('jobs.job_queue'::regclass)")
    queue.claim(db, "w", 10)
    assert _pages(db, "claim", worker="w", max_jobs=10) < 2 * short + 50


def test_a_claim_scans_the_index_of_due_jobs(db, registry):
    _fill(db, registry, MANY)
    plan = db.execute(
        "explain (analyze, costs off, timing off, format json) select q.job_id from jobs.job_queue as q"
        " where q.run_after is null order by q.priority, q.created_at, q.job_id limit 10 for update skip locked"
    ).fetchone()[0][0]["Plan"]
    scan = plan["Plans"][0]["Plans"][0]
    assert (scan["Index Name"], scan["Actual Rows"]) == ("job_queue_due_idx", 10)


@pytest.mark.parametrize("statement", ["complete", "renew", "give_back"])
def test_fenced_statements_look_up_each_job_by_key(db, registry, statement):
    _fill(db, registry, MANY)
    jobs = queue.claim(db, "w", 50)
    values = {"ids": [j.id for j in jobs], "attempts": [j.attempt for j in jobs]}
    more = {"outputs": [None] * 50} if statement == "complete" else {}
    table = db.execute(
        "select relpages from pg_class where oid = 'jobs.background_jobs'::regclass"
    ).fetchone()[0]
    pages = _pages(db, statement, **values, **more)
    assert pages < 50 * 40
    assert table > 200 and _pages(db, "renew", **values) < 50 * 40
