"""What run monitoring learns about runs that are started: only those whose process is gone are reported lost."""

import json
import socket
import subprocess
import sys

import dagster as dg
import psutil
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

from dagster_backfills.lib.locked_file import LOCK_TAG, locked_file
from dagster_backfills_tests.chaos.stack import free_port


@dg.job
def nothing() -> None:
    pass


@pytest.fixture
def instance(tmp_path):
    launcher = {"module": "dagster_backfills.lib.run_launcher", "class": "WatchedRunLauncher"}
    overrides = {"run_launcher": launcher, "run_monitoring": {"enabled": True}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=overrides) as made:
        yield made


@pytest.fixture
def process():
    """One that works on a run, by its command line."""
    code = "import time; time.sleep(600)  # spawned by dagster"
    started = subprocess.Popen([sys.executable, "-c", code])
    yield started
    started.kill()
    started.wait()


def health(instance, tags, pid=None):
    run = instance.create_run_for_job(nothing, tags=tags, status=dg.DagsterRunStatus.STARTED)
    if pid is not None:
        instance.report_engine_event(
            f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid)
        )
    assert instance.run_launcher.supports_check_run_worker_health
    return instance.run_launcher.check_run_worker_health(run).status


def served_at(host, port):
    return {GRPC_INFO_TAG: json.dumps({"host": host, "port": port})}


def test_a_run_outlives_its_code_server_and_is_lost_with_its_process(instance, process):
    nobody = served_at("127.0.0.1", free_port())
    assert health(instance, nobody, process.pid) == WorkerStatus.RUNNING
    process.kill()
    # Not waited for: a process that nobody reaps is gone all the same.
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert health(instance, nobody, process.pid) == WorkerStatus.NOT_FOUND
    process.wait()
    assert health(instance, nobody, process.pid) == WorkerStatus.NOT_FOUND


def test_another_process_with_the_number_of_the_runs_is_not_taken_for_it(instance):
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            assert health(instance, served_at("127.0.0.1", free_port()), other.pid) == WorkerStatus.NOT_FOUND
        finally:
            other.kill()


def test_a_code_server_elsewhere_that_does_not_answer_is_waited_for(instance):
    assert health(instance, served_at("code.invalid", 4266), 1) == WorkerStatus.RUNNING


def test_a_code_server_that_was_started_anew_knows_nothing_of_its_earlier_runs(instance, tmp_path):
    module = tmp_path / "nothing_here.py"
    module.write_text("import dagster as dg\ndefs = dg.Definitions()\n")
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "dagster",
        "api",
        "grpc",
        "-f",
        str(module),
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                assert server.poll() is None
            assert health(instance, served_at("127.0.0.1", port)) == WorkerStatus.NOT_FOUND
        finally:
            server.kill()


def test_a_run_of_the_command_line_lives_as_long_as_its_lock_is_held(instance, tmp_path):
    lock = tmp_path / "run.lock"
    tags = {LOCK_TAG: f"{socket.gethostname()}:{lock}"}
    with locked_file(lock):
        assert health(instance, tags) == WorkerStatus.RUNNING
    assert health(instance, tags) == WorkerStatus.NOT_FOUND
    assert health(instance, {LOCK_TAG: f"another.machine:{lock}"}) == WorkerStatus.RUNNING


def test_a_run_that_nothing_is_known_of_is_left_alone(instance):
    assert health(instance, {}) == WorkerStatus.RUNNING
