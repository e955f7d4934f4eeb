"""Run monitoring: reloading the code server as in Compose, killed runs, and runs from the command line."""

import json
import os
import sys
from collections.abc import Iterator

import psutil
import pytest

from benchmarks.servers import Webserver, dagster_servers
from dagster_backfills_tests.chaos.stack import free_port
from dagster_backfills_tests.cli.test_launch import LAUNCH, LOCATION
from dagster_backfills_tests.conftest import new_database
from dagster_backfills_tests.e2e.conftest import Stack, ended_at_last, instance_environment
from dagster_backfills_tests.e2e.graphql import REPOSITORY, messages, runs, wait_for
from dagster_backfills_tests.haste import HASTE, MONITORING, hurried
from dagster_backfills_tests.programs import run, start_server

# This machine, under a name that does not show it: in Compose it is another container.
HOST = "127.0.0.2"
DAGSTER = (sys.executable, "-m", "dagster")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
_LAUNCH = """mutation($run: ExecutionParams!) { launchRun(executionParams: $run) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
_RELOAD = """mutation($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) {
  __typename ... on WorkspaceLocationEntry { loadStatus } } }"""
_AGAIN = """mutation($id: String!) { launchRunReexecution(
  reexecutionParams: {parentRunId: $id, strategy: ALL_STEPS}) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""


@pytest.fixture(scope="module")
def stack(server_url, template, project_root, tmp_path_factory) -> Iterator[Stack]:
    """Like Compose: the webserver and the daemon use a code server that is a separate service."""
    home, port = tmp_path_factory.mktemp("dagster_home"), free_port()
    (home / "dagster.yaml").write_text(hurried((project_root / "dagster.yaml").read_text(), MONITORING))
    code = [*DAGSTER, "code-server", "start", "-h", HOST, "-p", str(port)]
    with new_database(server_url, template) as url:
        env = instance_environment(url, home) | {"BACKFILLS_HOME": str(home / "state")}
        code_server = start_server([*code, "-m", LOCATION], home / "code.log", os.environ | env, project_root)
        with ended_at_last(code_server):
            health = [*DAGSTER, "api", "grpc-health-check", "--host", HOST, "-p", str(port)]
            wait_for("the code server", lambda: run(health).returncode == 0, timeout=300)
            with dagster_servers(
                home, LOCATION, env, working_directory=project_root, code_server=(HOST, port), haste=HASTE,
                start=start_server,
            ) as webserver:  # fmt: skip
                yield Stack(webserver, home, env, url)


def status(webserver: Webserver, run_id: str) -> str:
    return runs(webserver, runIds=[run_id])[0]["status"]


def looks(stack: Stack, run_id: str) -> int:
    """The number of health checks of the run by run monitoring."""
    return (stack.home / "daemon.log").read_text().count(f"Checking run {run_id}")


def test_a_code_reload_does_not_affect_a_run_and_a_kill_is_detected(stack: Stack):
    ui = stack.webserver
    run = {
        "selector": {
            "repositoryLocationName": LOCATION,
            "repositoryName": REPOSITORY,
            "jobName": "working_job",
        },
        "runConfigData": json.dumps({"ops": {"work": {"config": {"seconds": 600}}}}),
        "executionMetadata": {"tags": [{"key": "dagster/max_retries", "value": "0"}]},
    }
    run_id = ui.ask(_LAUNCH, run=run)["launchRun"]["run"]["runId"]
    with stack.connect() as conn:
        query = "select count(*) from backfill.batches where run_id = %s"
        wait_for("the run's work", lambda: conn.execute(query, [run_id]).fetchone() != (0,), timeout=300)
    assert ui.ask(_RELOAD, name=LOCATION)["reloadRepositoryLocation"]["loadStatus"] == "LOADED"
    before = looks(stack, run_id)
    wait_for(
        "ten looks of run monitoring, a second apart: twice as long as a lock may be missing",
        lambda: looks(stack, run_id) > before + 10 or status(ui, run_id) != "STARTED",
        timeout=300,
    )
    assert status(ui, run_id) == "STARTED"
    [pid] = [
        int(line.split("pid: ")[1].split(")")[0])
        for line in messages(ui, run_id)
        if line.startswith("Started process for run (pid: ")
    ]
    process = psutil.Process(pid)
    # Together with the code server that started it, which would report it otherwise.
    for each in (process.parent(), process):
        each.kill()
    wait_for("the run's failure", lambda: status(ui, run_id) == "FAILURE", timeout=300)
    assert any("nothing holds its lock" in line for line in messages(ui, run_id))


def test_a_run_from_the_command_line_belongs_to_the_location_and_can_be_re_executed(stack: Stack):
    command = [sys.executable, "-c", LAUNCH, "working_job", "{}", "somebody"]
    done = run(command, env=os.environ | stack.environment)
    assert done.returncode == 0, done.stderr
    answer = stack.webserver.ask(_AGAIN, id=done.stdout.strip())["launchRunReexecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    again = answer["run"]["runId"]
    wait_for("its end", lambda: status(stack.webserver, again) not in ("QUEUED", "STARTING", "STARTED"), 300)
    assert status(stack.webserver, again) == "SUCCESS"
