"""`backfills up` whole: Postgres, UI, daemon, a run from the command line in the UI, and the end of it all.

Its end by Ctrl-C is in the tutorial's test.
"""

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from dagster_backfills.identity import USER_TAG, system_user
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills_tests.cli.conftest import SCRIPT, eventually
from dagster_backfills_tests.programs import run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

JOB = "refresh_progress_stats"
LAUNCH = f"""
import sys
from dagster_backfills.cli.run_process import run_job
run = run_job({JOB!r})
print(run.run_id, run.status.value)
"""
# As the UI asks for the runs of a job: by its page, and by the filter of its list of runs.
RUNS_OF_A_JOB = """query($job: PipelineSelector!, $filter: RunsFilter!) {
  pipelineOrError(params: $job) { __typename ... on Pipeline { runs { runId status } } }
  runsOrError(filter: $filter) { ... on Runs { results { runId status pipelineName } } }
}"""
LOCATION = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
  __typename ... on RepositoryLocation { repositories { name } } } } } } }"""
LAUNCH_RUN = """mutation($run: ExecutionParams!) { launchRun(executionParams: $run) {
  ... on LaunchRunSuccess { run { runId } } } }"""
TAGS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { tags { key value } } } }"
DAEMONS = "{ instance { daemonHealth { allDaemonStatuses { required healthy } } } }"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Up:
    """A running `backfills up`, or what ends with it, with a state folder of its own."""

    def __init__(self, state: Path, *command: str) -> None:
        self.state, self.port = state, free_port()
        self.env = os.environ | {"BACKFILLS_HOME": str(state)}
        self.printed = printed = state.with_name("printed")
        with printed.open("w") as output:
            self.process = subprocess.Popen(
                [SCRIPT, *(command or ["up"]), "--port", str(self.port)],
                env=self.env,
                stdout=output,
                stderr=output,
            )
        eventually(lambda: self.process.poll() is not None or "Dagster is running at" in printed.read_text())
        assert (
            f"Dagster is running at http://127.0.0.1:{self.port}. Press Ctrl-C to stop.\n"
            in printed.read_text()
        )

    def ask(self, query: str, headers: dict[str, str] | None = None, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            body,
            {"Content-Type": "application/json"} | (headers or {}),
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["data"]

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run([SCRIPT, *arguments], env=self.env)

    def processes(self) -> list[psutil.Process]:
        """Every process that has this state folder in its environment, Postgres included."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("BACKFILLS_HOME") == str(self.state):
                    found.append(process)
        return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "state"
    EmbeddedServer(tmp_path / "state").delete()


def test_up_serves_everything_and_down_leaves_nothing_running(state: Path):
    up = Up(state)
    second = up.cli("up", "--port", str(free_port()))
    assert second.returncode == 2
    first = f"`backfills up` is already running (process {up.process.pid}): http://127.0.0.1:{up.port}."
    assert first in second.stderr
    demo = up.cli("demo", "--serve", "--port", str(up.port))
    assert (demo.returncode, "Choose another" in demo.stderr) == (2, True)
    other = {"BACKFILLS_HOME": str(state.with_name("other"))}
    taken = run([SCRIPT, "up", "--port", str(up.port)], env=up.env | other)
    assert (taken.returncode, "Choose another" in taken.stderr) == (2, True)
    assert up.cli("migrate", "--status").returncode == 0

    eventually(lambda: _healthy(up))
    launched = run([sys.executable, "-c", LAUNCH], env=up.env)
    run_id, status = launched.stdout.split()
    assert status == "SUCCESS"
    (location,) = up.ask(LOCATION)["workspaceOrError"]["locationEntries"]
    (repository,) = location["locationOrLoadError"]["repositories"]
    job = {
        "repositoryLocationName": location["name"],
        "repositoryName": repository["name"],
        "pipelineName": JOB,
    }
    label = f"{repository['name']}@{location['name']}"
    of_the_job = {"pipelineName": JOB, "tags": [{"key": ".dagster/repository", "value": label}]}
    shown = up.ask(RUNS_OF_A_JOB, job=job, filter=of_the_job)
    assert {"runId": run_id, "status": "SUCCESS"} in shown["pipelineOrError"]["runs"]
    assert run_id in [run["runId"] for run in shown["runsOrError"]["results"]]

    # What the UI launches carries the name of whoever sits here, whatever it is sent along with.
    launch = {
        "selector": {**job, "pipelineName": None, "jobName": JOB},
        "runConfigData": "{}",
        "mode": "default",
    }
    by_hand = up.ask(
        LAUNCH_RUN, run=launch | {"executionMetadata": {"tags": [{"key": USER_TAG, "value": "x"}]}}
    )
    tags = up.ask(TAGS, id=by_hand["launchRun"]["run"]["runId"])["runOrError"]["tags"]
    assert {"key": USER_TAG, "value": system_user()} in tags
    with pytest.raises(urllib.error.HTTPError, match="403"):
        up.ask(DAEMONS, headers={"X-Forwarded-User": "somebody"})

    down = up.cli("down")
    assert down.returncode == 0, down.stderr
    assert "Stopped Dagster." in down.stderr
    assert up.process.wait() == 0
    assert up.processes() == []
    assert "No embedded Postgres was running." in up.cli("down").stderr
    # What the UI, the daemon and the runs say is in the file, and none of it was on the terminal.
    printed = state.with_name("printed").read_text().splitlines()
    assert (state / "up.log").exists() and str(state / "up.log") in printed[-2]
    assert len(printed) < 20


def test_a_postgres_that_was_running_before_keeps_running(state: Path):
    server = EmbeddedServer(state)
    server.start()
    up = Up(state)
    up.process.terminate()
    assert up.process.wait() == 0
    with psycopg.connect(server.url()) as conn:
        assert conn.execute("select count(*) from backfill.schema_migrations").fetchone() != (0,)


def test_a_read_only_command_stops_the_server_that_it_started(tmp_path: Path):
    server = EmbeddedServer(tmp_path)
    env = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run([SCRIPT, *arguments], env=env | {"BACKFILLS_HOME": str(tmp_path)})

    try:
        refused = call("status")
        assert (refused.returncode, server.is_running()) == (3, False)
        assert call("migrate").returncode == 0
        assert server.stop()
        for command in (["status", "--no-ticks"], ["list"], ["failures"]):
            looked = call(*command)
            assert (looked.returncode, server.is_running()) == (0, False), looked.stderr
        assert server.start()
        assert call("list").returncode == 0
        assert server.is_running()
    finally:
        server.delete()


def _healthy(up: Up) -> bool:
    statuses = up.ask(DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
    return bool(statuses) and all(each["healthy"] for each in statuses if each["required"])
