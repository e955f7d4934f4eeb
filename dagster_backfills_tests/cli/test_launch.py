"""Runs launched from the command line: recorded, followed, and ended in the instance, however their process ends."""

import json
import os
import re
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import psycopg
import pytest

from dagster_backfills.cli.audit import add_results
from dagster_backfills.engine import audit
from dagster_backfills.instance import run_launcher
from dagster_backfills.instance.dagster_home import dagster_environment
from dagster_backfills_tests.cli.conftest import eventually
from dagster_backfills_tests.programs import start_reading

LOCATION = "dagster_backfills_tests.cli.location"
LAUNCH = f"""
import json, sys
from dagster_backfills.cli import app, errors
from dagster_backfills.cli.launch import launch
app.treat_termination_as_interrupt()
try:
    run_id, code = launch(sys.argv[1], json.loads(sys.argv[2]), {{"who": sys.argv[3]}}, module="{LOCATION}")
    print(run_id)
    sys.exit(code)
except BaseException as error:
    sys.exit(errors.report(error))
"""

# Several processes load Dagster, which takes seconds on an idle machine and minutes on a busy one.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def variables(instance_variables: dict[str, str]) -> Iterator[dict[str, str]]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in instance_variables.items():
            patch.setenv(name, value)
        found = dagster_environment()
        for name, value in found.items():
            patch.setenv(name, value)
        yield found


@pytest.fixture(scope="module")
def instance(variables: dict[str, str]) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as instance:
        yield instance


class Launched:
    """`run_job` in a process, called like by a command."""

    def __init__(self, job: str, **config: object) -> None:
        run_config = {"ops": {"work": {"config": config}}}
        self.who = uuid.uuid4().hex
        command = [sys.executable, "-c", LAUNCH, job, json.dumps(run_config), self.who]
        self.process = start_reading(command)

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate()
        return self.process.wait(), out, err

    def run(self, instance: dg.DagsterInstance) -> dg.DagsterRun | None:
        return next(iter(instance.get_runs(dg.RunsFilter(tags={"who": self.who}))), None)

    def running(self, instance: dg.DagsterInstance) -> dg.DagsterRun:
        """The run, once its op has started."""

        def works() -> bool:
            run = self.run(instance)
            with psycopg.connect(os.environ["DATABASE_URL"]) as conn:
                query = "select count(*) from backfill.batches where run_id = %s"
                return run is not None and conn.execute(query, [run.run_id]).fetchone() != (0,)

        eventually(lambda: self.process.poll() is not None or works())
        assert self.process.poll() is None, self.end()
        run = self.run(instance)
        assert run is not None
        return run


def worker(instance: dg.DagsterInstance, run: dg.DagsterRun) -> psutil.Process:
    """The process that executes the run, by its first event."""
    messages = "".join(event.message for event in instance.all_logs(run.run_id))
    [pid] = re.findall(r"Started process for run \(pid: (\d+)\)", messages)
    return psutil.Process(int(pid))


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status.value


def outcome(run: dg.DagsterRun) -> tuple[str, str]:
    """The outcome of the run's launch, as `backfills audit` lists it."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as conn:
        entries = audit.latest(conn, 100)
    add_results(entries)
    (entry,) = (each for each in entries if each["runs"] == [run.run_id])
    return entry["outcome"], entry["detail"]


def test_a_run_is_recorded_with_its_tags_and_followed_to_its_end(instance):
    launched = Launched("working_job", batches=4, seconds=0.5)
    code, out, err = launched.end()
    assert code == 0
    assert err.splitlines()[-1].startswith("a/table: 40 of 40 units, ")
    run = launched.run(instance)
    assert run is not None
    assert out.strip() == run.run_id
    assert (run.job_name, run.status.value) == ("working_job", "SUCCESS")
    # The location's name in the webserver, which a re-execution and the Timeline need.
    label = {".dagster/repository": f"__repository__@{LOCATION}"}
    assert run.run_id in {found.run_id for found in instance.get_runs(dg.RunsFilter(tags=label))}
    assert not [tag for tag, value in run.tags.items() if "/" in value]
    assert outcome(run) == ("done", "")


def test_a_run_that_fails_ends_with_1_and_says_what_failed(instance):
    launched = Launched("working_job", fail=True)
    code, _, err = launched.end()
    assert code == 1
    assert "work: It failed on purpose." in err
    log = re.search(r"ended with status FAILURE\. Log: (.*)", err)
    assert log and "It failed on purpose." in Path(log[1]).read_text()
    run = launched.run(instance)
    assert run is not None and run.status.value == "FAILURE"


def test_an_unknown_job_is_named_with_the_known_ones_and_no_run_is_created(instance):
    before = instance.get_runs_count()
    code, out, err = Launched("no_such_job").end()
    assert (code, out) == (2, "")
    assert err == "backfills: There is no job 'no_such_job'. There are working_job.\n"
    assert instance.get_runs_count() == before


def test_an_invalid_configuration_is_a_usage_error(instance):
    before = instance.get_runs_count()
    code, _, err = Launched("working_job", batchez=1).end()
    assert code == 2
    assert 'unexpected config entry "batchez"' in err
    assert instance.get_runs_count() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cancels_the_run(instance, number):
    launched = Launched("working_job", seconds=600)
    run = launched.running(instance)
    process = worker(instance, run)
    launched.process.send_signal(number)
    code, out, err = launched.end()
    assert (code, out) == (130, "")
    assert "Traceback" not in err
    assert status(instance, run) == "CANCELED"
    assert not process.is_running()


def test_a_second_interrupt_kills_a_run_that_ignores_the_first(instance):
    launched = Launched("working_job", seconds=600, stubborn=True)
    run = launched.running(instance)
    process = worker(instance, run)
    launched.process.send_signal(signal.SIGINT)
    eventually(lambda: status(instance, run) == "CANCELING")
    launched.process.send_signal(signal.SIGINT)
    assert launched.end()[0] == 130
    assert status(instance, run) == "CANCELED"
    assert not process.is_running()


def test_a_cancellation_in_the_ui_reaches_the_process(instance):
    launched = Launched("working_job", seconds=600)
    run = launched.running(instance)
    instance.report_run_canceling(run)
    assert launched.end()[0] == 130
    assert status(instance, run) == "CANCELED"


def test_a_run_whose_process_was_killed_has_failed(instance):
    launched = Launched("working_job", seconds=600)
    run = launched.running(instance)
    worker(instance, run).kill()
    code, _, message = launched.end()
    assert code == 1 and "The run's process ended unexpectedly (exit code -9)." in message
    assert status(instance, run) == "FAILURE"


def test_a_run_whose_processes_were_all_killed_is_found_dead_and_the_audit_says_that_it_failed(
    instance, monkeypatch
):
    launched = Launched("working_job", seconds=600)
    run = launched.running(instance)
    process = worker(instance, run)
    launched.process.kill()
    launched.end()
    # Its own process is alive, and may finish it.
    monkeypatch.setattr(run_launcher, "GRACE_SECONDS", 0)
    check = instance.run_launcher.check_run_worker_health
    assert (status(instance, run), check(run).status.value) == ("STARTED", "RUNNING")
    assert outcome(run) == ("started", "")
    process.kill()
    eventually(lambda: check(run).status.value == "NOT_FOUND", 60)
    instance.report_run_failed(run)
    assert outcome(run) == ("failed", "The run ended with status FAILURE.")


def test_a_database_that_lacks_a_migration_is_refused_before_there_is_a_run(
    instance, make_database, monkeypatch
):
    monkeypatch.setenv("DATABASE_URL", make_database(migrated=False))
    code, _, err = Launched("working_job").end()
    assert code == 3
    assert "lacks migration 0001_backfill" in err
    assert "Run: backfills migrate" in err
