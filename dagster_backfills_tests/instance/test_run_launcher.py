"""What run monitoring learns about runs that are started: only those whose process is gone are reported lost."""

import json
import os
import subprocess
import sys

import dagster as dg
import psycopg
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster_postgres.utils import DagsterPostgresException
from psycopg import sql

from dagster_backfills.instance import run_launcher, run_lock
from dagster_backfills.instance.dagster_home import with_search_path
from dagster_backfills.instance.run_launcher import WatchedRunLauncher
from dagster_backfills.instance.storage import sessions
from dagster_backfills.instance.storage.runs import LOCK_HELD, NO_LOCK
from dagster_backfills_tests.chaos.stack import free_port
from dagster_backfills_tests.cli.conftest import eventually

SETTINGS = {
    "storage": {
        "custom": {"module": "dagster_backfills.instance.storage", "class": "BatchedPostgresStorage"}
    },
    "run_launcher": {"module": "dagster_backfills.instance.run_launcher", "class": "WatchedRunLauncher"},
}
WORK = """
import sys, time
import dagster as dg

@dg.op
def wait(): time.sleep(600)

@dg.job(executor_def=dg.in_process_executor)
def waiting(): wait()

waiting.execute_in_process(instance=dg.DagsterInstance.get(), run_id=sys.argv[1], raise_on_error=False)
"""
HELD = "select count(*) from pg_locks where locktype = 'advisory'"


@dg.job
def nothing() -> None:
    pass


@pytest.fixture
def database_url(database_with_dagster):
    return database_with_dagster


@pytest.fixture
def instance(database_url, tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", with_search_path(database_url, "dagster"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text(json.dumps(SETTINGS))
    with dg.DagsterInstance.get() as made:
        yield made


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(run_launcher, "GRACE_SECONDS", 0)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(run_lock, "_EVERY_SECONDS", 0.05)


def started(instance, **given) -> dg.DagsterRun:
    """A run that has started in this process."""
    run = instance.create_run_for_job(nothing, **given)
    instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job_name=run.job_name), run.run_id
    )
    return instance.get_run_by_id(run.run_id)


def health(instance, run) -> WorkerStatus:
    assert instance.run_launcher.supports_check_run_worker_health
    return instance.run_launcher.check_run_worker_health(run).status


def lose_sessions(conn) -> None:
    conn.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where datname = current_database() and application_name = 'dagster run'"
    )


@pytest.mark.programs
def test_a_run_is_healthy_until_its_process_is_killed(instance, impatient):
    run_id = dg.DagsterRun("waiting").run_id
    with subprocess.Popen([sys.executable, "-c", WORK, run_id]) as process:
        try:
            eventually(lambda: (found := instance.get_run_by_id(run_id)) and found.status.value == "STARTED")
            run = instance.get_run_by_id(run_id)
            assert health(instance, run) == WorkerStatus.RUNNING
        finally:
            process.kill()
    eventually(lambda: health(instance, run) == WorkerStatus.NOT_FOUND, 60)


def test_a_process_that_lost_its_connection_takes_the_lock_again(instance, conn, impatient, quick):
    run = started(instance)
    assert conn.execute(HELD).fetchone() == (1,)
    lose_sessions(conn)
    eventually(lambda: conn.execute(HELD).fetchone() == (1,), 60)
    assert health(instance, run) == WorkerStatus.RUNNING


def test_a_briefly_missing_lock_does_not_mean_that_the_run_is_lost(instance, conn, monkeypatch):
    run = started(instance)
    lose_sessions(conn)
    looks = [health(instance, run) for _ in range(3)]
    assert looks == [WorkerStatus.RUNNING] * 3
    monkeypatch.setattr(run_launcher, "GRACE_SECONDS", 0)
    assert health(instance, run) == WorkerStatus.NOT_FOUND


def test_a_failed_status_check_restarts_the_grace_period(instance, conn, monkeypatch):
    monkeypatch.setattr(
        "dagster_postgres.utils.calculate_delay", lambda **_: 0.01
    )  # between its five attempts
    monkeypatch.setattr(sessions, "_WAIT_SECONDS", 0.0)  # the test's process executes the run
    run = started(instance)
    name = sql.Identifier(conn.info.dbname)
    lose_sessions(conn)
    health(instance, run)
    assert set(instance.run_launcher._missing_since) == {run.run_id}
    with psycopg.connect(conn.info.dsn, dbname="postgres", autocommit=True) as other:
        other.execute(sql.SQL("alter database {} allow_connections false").format(name))
        with pytest.raises(DagsterPostgresException):
            health(instance, run)
        other.execute(sql.SQL("alter database {} allow_connections true").format(name))
    assert instance.run_launcher._missing_since == {}


@pytest.mark.parametrize("end", ["RUN_SUCCESS", "RUN_FAILURE", "RUN_CANCELED"])
def test_the_lock_is_released_when_the_run_ends(instance, conn, end):
    run = started(instance)
    assert conn.execute(HELD).fetchone() == (1,)
    kind = dg.DagsterEventType[end]
    instance.report_dagster_event(dg.DagsterEvent(kind.value, job_name=run.job_name), run.run_id)
    eventually(lambda: conn.execute(HELD).fetchone() == (0,), 60)


def test_a_restarted_code_server_does_not_mean_that_the_run_is_lost(instance, impatient):
    where = json.dumps({"host": "127.0.0.1", "port": free_port()})
    run = instance.create_run_for_job(
        nothing, tags={GRPC_INFO_TAG: where}, status=dg.DagsterRunStatus.STARTED
    )
    assert health(instance, run) == WorkerStatus.RUNNING
    assert health(instance, started(instance, tags={GRPC_INFO_TAG: where})) == WorkerStatus.RUNNING


def test_a_tag_that_names_a_file_is_ignored_and_the_file_stays(instance, impatient, tmp_path):
    file = tmp_path / "precious"
    file.write_text("x" * 1700)
    for host in (os.uname().nodename, "another.machine"):
        run = started(instance, tags={"backfills/lock": f"{host}:{file}"})
        assert health(instance, run) == WorkerStatus.RUNNING
    assert file.read_text() == "x" * 1700


def test_a_retry_of_a_lost_run_is_not_taken_for_it(instance, conn, impatient, quick):
    dead = started(instance)
    instance.run_storage._locks.pop(dead.run_id).release()
    assert health(instance, dead) == WorkerStatus.NOT_FOUND
    again = started(instance, tags=dead.tags, parent_run_id=dead.run_id, root_run_id=dead.run_id)
    assert health(instance, again) == WorkerStatus.RUNNING


def test_with_another_storage_no_run_is_reported_lost(tmp_path, impatient):
    overrides = {"run_launcher": SETTINGS["run_launcher"]}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=overrides) as stock:
        run = stock.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
        assert isinstance(stock.run_launcher, WatchedRunLauncher)
        assert health(stock, run) == WorkerStatus.RUNNING


def test_the_runs_log_says_whether_its_process_is_monitored(instance):
    run = started(instance)
    output = [
        entry.message for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    ]
    assert LOCK_HELD in output[-1] and NO_LOCK not in output[-1]


def test_the_query_finds_the_lock_of_exactly_its_run(instance, conn):
    for number in range(50):
        run_id = f"run {number}"
        conn.execute("select pg_advisory_lock_shared(hashtextextended('dagster run ' || %s, 0))", [run_id])
        assert instance.run_storage.is_lock_held(run_id)
        conn.execute("select pg_advisory_unlock_all()")
        assert not instance.run_storage.is_lock_held(run_id)
    other = psycopg.connect(conn.info.dsn, dbname="postgres", autocommit=True)
    with other:
        other.execute("select pg_advisory_lock_shared(hashtextextended('dagster run elsewhere', 0))")
        assert not instance.run_storage.is_lock_held("elsewhere")
