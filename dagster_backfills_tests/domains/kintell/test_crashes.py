"""Dead, suspended and concurrent workers, broken connections and server restarts lose and repeat nothing."""

import os
import random
import signal
import threading
import time

import psycopg
import pytest

from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills.domains.kintell.importing.jobs import load_job, set_status
from dagster_backfills.postgres.migrations import apply_migrations
from dagster_backfills_tests.domains.kintell.sample import add_users, mixed_rows, row, state, write_csv
from dagster_backfills_tests.domains.kintell.workers import Nursery

pytestmark = pytest.mark.programs

ROWS, BATCH = 2000, 25
UNDISTURBED = pytest.StashKey[list]()


@pytest.fixture(scope="module")
def nursery():
    with Nursery() as made:
        yield made


@pytest.fixture
def prepared(make_database, tmp_path):
    """A function that makes a database with users, sessions and a registered job, and returns it and the job."""
    path = write_csv(tmp_path / "sessions.csv", [*mixed_rows(ROWS), *(row(i) for i in range(ROWS // 3))])

    def make():
        url = make_database()
        with psycopg.connect(url, autocommit=True) as conn:
            add_users(conn)
            seed = write_csv(tmp_path / "seed.csv", [row(i, rating="3") for i in range(0, ROWS, 5)])
            run_import(url, register(conn, str(seed), [str(tmp_path)]).job, Options(), [str(tmp_path)])
            return url, register(conn, str(path), [str(tmp_path)], on_duplicate="update").job

    return make


def outcome(url):
    with psycopg.connect(url, autocommit=True) as conn:
        return state(conn)


def rows_done(url, job):
    with psycopg.connect(url, autocommit=True) as conn:
        return load_job(conn, job).processed_rows


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


@pytest.fixture
def undisturbed(prepared, tmp_path, request):
    """What an import leaves that nothing disturbs; worked out once, as it is the same for every test."""
    known = request.node.session.stash.setdefault(UNDISTURBED, [])
    if not known:
        url, job = prepared()
        run_import(url, job, Options(batch_rows=BATCH), [str(tmp_path)])
        known.append(outcome(url))
    return known[0]


@pytest.mark.timeout(600)
def test_a_worker_killed_at_random_moments_leaves_the_same_result_as_an_undisturbed_one(
    prepared, undisturbed, nursery, tmp_path
):
    rng, kills, positions = random.Random(20240229), 0, set()
    while kills < 20:
        url, job = prepared()
        ending = ""
        while ending != "completed":
            pid = nursery.start(url, job, tmp_path, batch_rows=BATCH)
            if kills < 20:
                at = rows_done(url, job)
                if rng.random() < 0.7:  # some are killed while they start, most while they write
                    wait_until(lambda at=at, url=url, job=job: rows_done(url, job) > at)
                time.sleep(rng.uniform(0.0, 0.2))
                os.kill(pid, signal.SIGKILL)
            ending = nursery.outcome(pid)
            if ending == f"UserError: Job {job} is completed and can't be resumed":
                break  # killed after its last commit
            assert ending in ("killed", "completed")
            kills += ending == "killed"
            positions.add(rows_done(url, job))
        assert outcome(url) == undisturbed
    assert len(positions) > 5


def test_with_two_workers_on_one_job_one_continues_and_the_other_stops(
    prepared, undisturbed, nursery, tmp_path
):
    url, job = prepared()
    pids = [nursery.start(url, job, tmp_path, batch_rows=BATCH) for _ in range(2)]
    endings = sorted(nursery.outcome(pid) for pid in pids)
    assert endings[1] == "completed"
    assert endings[0].startswith(("JobBusy", "UserError: Job")), endings
    assert outcome(url) == undisturbed


def test_a_worker_suspended_past_its_lease_writes_nothing_when_it_wakes(
    prepared, undisturbed, nursery, tmp_path
):
    url, job = prepared()
    sleeper = nursery.start(url, job, tmp_path, batch_rows=BATCH, lease_seconds=1.0)
    wait_until(lambda: rows_done(url, job) > 100)
    os.kill(sleeper, signal.SIGSTOP)
    time.sleep(1.2)
    heir = nursery.start(url, job, tmp_path, batch_rows=BATCH, lease_seconds=1.0)
    wait_until(lambda: rows_done(url, job) > 800)
    os.kill(sleeper, signal.SIGCONT)
    assert nursery.outcome(heir) == "completed"
    assert "ClaimLost: attempt 2 took job" in nursery.outcome(sleeper)
    assert outcome(url) == undisturbed


def test_a_suspended_worker_keeps_its_job_until_its_lease_expires(prepared, nursery, tmp_path):
    url, job = prepared()
    sleeper = nursery.start(url, job, tmp_path, batch_rows=BATCH, lease_seconds=60.0)
    wait_until(lambda: rows_done(url, job) > 50)
    os.kill(sleeper, signal.SIGSTOP)
    second = nursery.start(url, job, tmp_path, batch_rows=BATCH, lease_seconds=60.0)
    assert nursery.outcome(second).startswith("JobBusy")
    os.kill(sleeper, signal.SIGCONT)
    assert nursery.outcome(sleeper) == "completed"


def test_broken_connections_are_reopened(prepared, undisturbed, nursery, tmp_path):
    url, job = prepared()
    pid = nursery.start(url, job, tmp_path, batch_rows=BATCH)
    with psycopg.connect(url, autocommit=True) as conn:
        for mark in (100, 600, 1100, 1600):
            wait_until(lambda mark=mark: rows_done(url, job) > mark)
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where application_name like 'kintell %' and datname = current_database()"
            )
    assert nursery.outcome(pid) == "completed"
    assert outcome(url) == undisturbed


def test_a_paused_job_makes_no_progress_until_it_is_resumed(prepared, undisturbed, nursery, tmp_path):
    url, job = prepared()
    pid = nursery.start(url, job, tmp_path, batch_rows=BATCH)
    wait_until(lambda: rows_done(url, job) > 300)
    with psycopg.connect(url, autocommit=True) as conn:
        paused = set_status(conn, job, "pause")
    assert nursery.outcome(pid) == "paused"
    assert rows_done(url, job) == paused.processed_rows < ROWS
    assert nursery.outcome(nursery.start(url, job, tmp_path, batch_rows=BATCH)) == "completed"
    assert outcome(url) == undisturbed


def test_two_imports_of_the_same_sessions_do_not_deadlock(make_database, nursery, tmp_path):
    url = make_database()
    forward = write_csv(tmp_path / "forward.csv", [row(i) for i in range(ROWS)])
    backward = write_csv(tmp_path / "backward.csv", [row(i) for i in reversed(range(ROWS))])
    with psycopg.connect(url, autocommit=True) as conn:
        add_users(conn)
        jobs = [register(conn, str(path), [str(tmp_path)]).job for path in (forward, backward)]
        pids = [nursery.start(url, job, tmp_path, batch_rows=400) for job in jobs]
        assert [nursery.outcome(pid) for pid in pids] == ["completed", "completed"]
        done = [load_job(conn, job) for job in jobs]
        assert sum(job.inserted_rows for job in done) == ROWS
        assert sum(job.skipped_rows for job in done) == ROWS
        assert conn.execute("select count(*) from kintell.event_outbox").fetchone() == (ROWS,)


def test_an_import_survives_a_server_restart(tmp_path_factory, tmp_path):
    from dagster_backfills.postgres.embedded import EmbeddedServer

    server = EmbeddedServer(tmp_path_factory.mktemp("restarting"))
    server.start()
    try:
        url = server.url()
        apply_migrations(url)
        path = write_csv(tmp_path / "sessions.csv", mixed_rows(ROWS))
        with psycopg.connect(url, autocommit=True) as conn:
            add_users(conn)
            job = register(conn, str(path), [str(tmp_path)]).job
        restarts = []

        def restart(progress):
            if progress.processed > 500 and not restarts:
                server.stop()
                restarts.append(threading.Timer(1.0, server.start))
                restarts[0].start()

        done = run_import(url, job, Options(batch_rows=BATCH), [str(tmp_path)], on_progress=restart)
        assert restarts
        assert (done.status, done.processed_rows, done.attempt) == ("completed", ROWS, 1)
        assert len(outcome(url)["sessions"]) == done.inserted_rows
    finally:
        server.delete()
