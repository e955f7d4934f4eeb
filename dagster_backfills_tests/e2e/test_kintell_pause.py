"""An import that is terminated in the UI and resumed, with a real webserver, daemon and run."""

import pytest

from dagster_backfills_tests.domains.kintell.sample import add_users, row, state, write_csv
from dagster_backfills_tests.e2e.graphql import LOCATION, REPOSITORY, runs, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROWS = 20_000
_LAUNCH = """mutation($run: ExecutionParams!) { launchRun(executionParams: $run) {
  __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on RunConfigValidationInvalid { errors { message } }
  ... on PythonError { message } } }"""
_TERMINATE = """mutation($run: String!) { terminateRun(runId: $run, terminatePolicy: SAFE_TERMINATE) {
  __typename
  ... on TerminateRunFailure { message }
  ... on PythonError { message } } }"""
_STEPS = """query($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { events {
  ... on MessageEvent { message } } } } }"""


def launch(webserver, config):
    run = {
        "selector": {
            "repositoryLocationName": LOCATION,
            "repositoryName": REPOSITORY,
            "jobName": "import_kintell_sessions",
        },
        "runConfigData": config,
    }
    answer = webserver.ask(_LAUNCH, run=run)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return answer["run"]["runId"]


def status_of(webserver, run):
    return runs(webserver, runIds=[run])[0]["status"]


def test_a_run_terminated_in_the_ui_leaves_a_paused_job_that_is_resumed_without_loss(start_stack, tmp_path):
    path = write_csv(tmp_path / "sessions.csv", [row(i) for i in range(ROWS)])
    variables = {"KINTELL_ALLOWED_LOCATIONS": str(tmp_path), "KINTELL_ERROR_FILES": str(tmp_path / "errors")}
    with start_stack(fill=add_users, variables=variables) as stack, stack.connect() as conn:
        first = launch(stack.webserver, {"file": str(path), "batch_rows": 20})
        begun = "select id from kintell.backfill_jobs where processed_rows > 0"
        (job,) = wait_for("the first batch", lambda: conn.execute(begun).fetchone())
        answer = stack.webserver.ask(_TERMINATE, run=first)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer
        wait_for("the run's end", lambda: status_of(stack.webserver, first) == "CANCELED")

        status, activity, done = conn.execute(
            "select status, activity, processed_rows from kintell.backfill_jobs"
        ).fetchone()
        assert (status, activity) == ("paused", None)
        assert 0 < done < ROWS
        log = stack.webserver.ask(_STEPS, run=first)["logsForRun"]["events"]
        assert any(f"Job {job} is paused" in event.get("message", "") for event in log)

        second = launch(stack.webserver, {"job": str(job)})
        wait_for(
            "the import's end",
            lambda: status_of(stack.webserver, second) in ("SUCCESS", "FAILURE", "CANCELED"),
        )
        assert status_of(stack.webserver, second) == "SUCCESS"
        after = state(conn)
        assert [session[0] for session in after["sessions"]] == [f"s-{i:06d}" for i in range(ROWS)]
        assert [event[1] for event in after["events"]] == [f"s-{i:06d}" for i in range(ROWS)]
        assert after["counts"][0][:6] == ("completed", ROWS, ROWS, ROWS, 0, 0)
