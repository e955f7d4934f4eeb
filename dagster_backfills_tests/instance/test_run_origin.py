"""Runs if Dagster has moved a private name."""

import dagster as dg
import pytest

from dagster_backfills.dagster.private import command_of_run
from dagster_backfills.errors import NotUsableError
from dagster_backfills.instance.launching import create_run
from dagster_backfills.instance.run_launcher import WatchedRunLauncher

LOCATION = "dagster_backfills_tests.cli.location"


@pytest.mark.parametrize("there", [True, False])
def test_a_run_belongs_to_its_code_location_if_dagster_allows_it(monkeypatch, there):
    if not there:
        monkeypatch.delattr("dagster._core.remote_origin.RegisteredCodeLocationOrigin")
    with dg.DagsterInstance.ephemeral() as instance:
        run = create_run(instance, LOCATION, "working_job", {}, {})
    assert run.job_name == "working_job"
    assert run.job_code_origin is not None
    assert (run.remote_job_origin is not None) == there


def test_if_a_run_can_not_be_executed_the_error_has_an_alternative(monkeypatch):
    monkeypatch.delattr("dagster._grpc.types.ExecuteRunArgs")
    with pytest.raises(NotUsableError, match="Launch the job in the UI"):
        command_of_run("a run", None)


def test_a_launcher_without_the_health_types_does_not_support_health_checks(monkeypatch):
    assert WatchedRunLauncher().supports_check_run_worker_health
    monkeypatch.delattr("dagster._core.launcher.WorkerStatus")
    assert not WatchedRunLauncher().supports_check_run_worker_health
