"""The UI's GraphQL requests as functions."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.servers import Webserver

LOCATION, REPOSITORY = "dagster_backfills.definitions", "__repository__"

_LAUNCH = """mutation($backfill: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfill) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
    ... on UnauthorizedError { message } } }"""
_LAUNCH_JOB = """mutation($run: ExecutionParams!) { launchRun(executionParams: $run) {
  __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on RunConfigValidationInvalid { errors { message } }
  ... on PythonError { message } } }"""
_LOGS = """query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
  ... on MessageEvent { message } } } } }"""
_STATUS = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status error { message } } } }"""
_PARTITIONS = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  partitionKeysByDimension { partitionKeys }
  assetPartitionStatuses { ... on DefaultPartitionStatuses {
    materializedPartitions failedPartitions unmaterializedPartitions materializingPartitions } } } } }"""
_RUNS = """query($filter: RunsFilter) { runsOrError(filter: $filter) { ... on Runs { results {
  runId status jobName tags { key value } } } } }"""
_START_SENSOR = """mutation($sensor: SensorSelector!) { startSensor(sensorSelector: $sensor) {
  ... on Sensor { sensorState { status } } } }"""
_CHECKS = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization {
    status evaluation { success description } } } } } } } }"""


def wait_for(what: str, condition: Callable[[], Any], timeout: float = 120) -> Any:
    """Wait until `condition` returns something true, and return it. Raises AssertionError with `what` on a timeout."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.2)
    raise AssertionError(f"waited {timeout:.0f} s in vain for {what}")


def asset_key(path: str) -> dict[str, list[str]]:
    return {"path": path.split("/")}


def launch_backfill(webserver: Webserver, assets: Sequence[str], partitions: Sequence[str]) -> str:
    """Launch a backfill like the dialog "Materialize selected". Returns its ID."""
    backfill = {
        "assetSelection": [asset_key(asset) for asset in assets],
        "partitionNames": list(partitions),
        "fromFailure": False,
    }
    answer = webserver.ask(_LAUNCH, backfill=backfill)["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    return answer["backfillId"]


def launch_job(webserver: Webserver, job: str, tags: Mapping[str, str]) -> str:
    """Launch a job like its launchpad. Returns the run's ID."""
    run = {
        "selector": {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "jobName": job},
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
    }
    answer = webserver.ask(_LAUNCH_JOB, run=run)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return answer["run"]["runId"]


def messages(webserver: Webserver, run_id: str) -> list[str]:
    """The log messages of a run."""
    events = webserver.ask(_LOGS, id=run_id)["logsForRun"]["events"]
    return [event["message"] for event in events]


def finished_backfill(webserver: Webserver, backfill_id: str) -> str | None:
    """The status of a finished backfill, or None."""
    status = webserver.ask(_STATUS, id=backfill_id)["partitionBackfillOrError"]["status"]
    return status if status in {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"} else None


def partition_states(webserver: Webserver, asset: str) -> dict[str, set[str]]:
    """Partition keys by state: materialized, failed, unmaterialized, materializing."""
    node = webserver.ask(_PARTITIONS, key=asset_key(asset))["assetNodeOrError"]
    statuses = node["assetPartitionStatuses"]
    return {name.removesuffix("Partitions"): set(keys) for name, keys in statuses.items()}


def partition_keys(webserver: Webserver, asset: str) -> set[str]:
    node = webserver.ask(_PARTITIONS, key=asset_key(asset))["assetNodeOrError"]
    return {key for dimension in node["partitionKeysByDimension"] for key in dimension["partitionKeys"]}


def runs(webserver: Webserver, **run_filter: Any) -> list[dict[str, Any]]:
    return webserver.ask(_RUNS, filter=run_filter)["runsOrError"]["results"]


def start_sensor(webserver: Webserver, name: str) -> None:
    """Turn a sensor on."""
    sensor = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "sensorName": name}
    state = webserver.ask(_START_SENSOR, sensor=sensor)["startSensor"]["sensorState"]
    assert state["status"] == "RUNNING"


def check_results(webserver: Webserver, asset: str) -> dict[str, bool | None]:
    """By check, whether it passed after the latest materialization; None if it has not run since."""
    node = webserver.ask(_CHECKS, key=asset_key(asset))["assetNodeOrError"]
    results: dict[str, bool | None] = {}
    for check in node["assetChecksOrError"]["checks"]:
        evaluation = (check["executionForLatestMaterialization"] or {}).get("evaluation")
        results[check["name"]] = None if evaluation is None else evaluation["success"]
    return results
