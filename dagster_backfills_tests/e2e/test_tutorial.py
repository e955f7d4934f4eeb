"""Executes the tutorial on what `make dev` starts. Steps in the UI are done through the webserver's GraphQL API."""

import os
import re
import signal
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from benchmarks.servers import Webserver
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills_tests.cli.test_up import Up
from dagster_backfills_tests.e2e.checkout import Checkout
from dagster_backfills_tests.e2e.graphql import (
    LOCATION,
    REPOSITORY,
    finished_backfill,
    launch_backfill,
    partition_keys,
    partition_states,
    runs,
    start_sensor,
    wait_for,
)
from dagster_backfills_tests.e2e.pages import Reader

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ASSET, SENSOR, NEWEST = "progress/cohort_stats", "progress_stats_refresh", "coh_000040"
_HERE = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY}
_SELECTOR = {**_HERE, "sensorName": SENSOR}
_STOP = """mutation($sensor: String!, $schedule: String!) {
  stopSensor(id: $sensor) { __typename } stopRunningSchedule(id: $schedule) { __typename } }"""
_STATES = """query($sensor: SensorSelector!, $schedule: ScheduleSelector!) {
  sensorOrError(sensorSelector: $sensor) { ... on Sensor { state: sensorState { id status } } }
  scheduleOrError(scheduleSelector: $schedule) { ... on Schedule { state: scheduleState { id status } } } }"""
_STALE = "select stale_since is not null from progress.cohort_status where cohort_id = %s"


class Tutorial:
    """The reader's second terminal and browser."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.state, self.place = state, Checkout(folder, variables={"BACKFILLS_HOME": str(state)})

    def make_dev(self) -> str:
        self.up = Up(self.state, "demo", "--serve")
        self.web = Webserver(f"http://127.0.0.1:{self.up.port}")
        return self.up.printed.read_text()

    def eval_env(self) -> str:
        variables = dict(
            line.removeprefix("export ").split("=", 1)
            for line in self.place.run("backfills", "env").splitlines()
        )
        self.place.database_url = variables["DATABASE_URL"].strip("'")
        return ""

    def switch_off(self) -> None:
        """Stops the sensor and the nightly schedule, which may be due just now, and waits until no run is active."""
        schedule = {**_HERE, "scheduleName": "nightly_progress_stats"}
        found = self.web.ask(_STATES, sensor=_SELECTOR, schedule=schedule)
        sensor, nightly = (found[each]["state"] for each in ("sensorOrError", "scheduleOrError"))
        assert (sensor["status"], nightly["status"]) == ("RUNNING", "RUNNING")
        stopped = self.web.ask(_STOP, sensor=sensor["id"], schedule=nightly["id"])
        assert "PythonError" not in str(stopped)
        wait_for("its runs", lambda: not runs(self.web, statuses=["QUEUED", "STARTING", "STARTED"]))

    def switch_on(self) -> None:
        start_sensor(self.web, SENSOR)

    def materialize_all(self) -> None:
        backfill = launch_backfill(self.web, [ASSET], sorted(partition_keys(self.web, ASSET)))
        wait_for("the backfill", lambda: finished_backfill(self.web, backfill), 240)
        assert len(runs(self.web, tags=[{"key": "dagster/backfill", "value": backfill}])) == 1
        with psycopg.connect(self.place.database_url) as conn:
            sizes = conn.execute("select cohort_id, students from progress.cohort_status").fetchall()
        unlucky = {cohort for cohort, size in sizes if size % 10 == 7}
        states = partition_states(self.web, ASSET)
        assert states["failed"] == unlucky != set()
        assert states["materialized"] == {cohort for cohort, _ in sizes} - unlucky

    def is_computed(self) -> None:
        with psycopg.connect(self.place.database_url, autocommit=True) as conn:
            wait_for("the sensor", lambda: conn.execute(_STALE, [NEWEST]).fetchone() == (False,))

    def press_ctrl_c(self) -> None:
        """Stops the UI, the daemon and the embedded Postgres."""
        assert len(psutil.Process(self.up.process.pid).children(recursive=True)) >= 3
        self.up.process.send_signal(signal.SIGINT)
        assert self.up.process.wait() == 0
        assert self.up.processes() == []
        assert not EmbeddedServer(self.state).is_running()
        with pytest.raises(urllib.error.URLError):
            self.web.ask("{ version }")


@pytest.fixture
def tutorial(tmp_path: Path) -> Iterator[Tutorial]:
    found = Tutorial(tmp_path, tmp_path / "state")
    yield found
    if hasattr(found, "up"):
        found.up.process.terminate()
        found.up.process.wait()
    EmbeddedServer(found.state).delete()


def test_the_tutorial_works(tutorial: Tutorial, project_root: Path) -> None:
    page = project_root / "docs" / "tutorial.md"
    text = page.read_text()
    assert re.search(
        r"^dev: .*\n\t\$\(BIN\)/backfills demo --serve$", (project_root / "Makefile").read_text(), re.M
    )
    reader = Reader(
        instead={
            "make dev": tutorial.make_dev,
            ". .venv/bin/activate": str,
            'eval "$(backfills env)"': tutorial.eval_env,
        },
        exact=False,
    )
    # Steps in the UI, to be done after the command or statement that begins with the key.
    clicks: dict[str, Callable[[], None]] = {
        "backfills status progress_stats histor": tutorial.switch_off,
        "alter table progress.cohort_stats add": tutorial.materialize_all,
        "backfills run progress_stats --which failed": tutorial.switch_on,
        "update progress.users set deleted_at = null": tutorial.is_computed,
    }
    assert f"switch\n`{SENSOR}` off" in text and f"switch `{SENSOR}` on again" in text
    for done in reader.follow(page, tutorial.place):
        if os.environ.get("TUTORIAL_SHOWS"):
            print(f"$ {done.what}\n{done.printed}")  # noqa: T201
        for command in [each for each in clicks if done.what.startswith(each)]:
            clicks.pop(command)()
    assert clicks == {}
    tutorial.press_ctrl_c()
