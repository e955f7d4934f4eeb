"""A GraphQL client for backfills, with the requests that the UI makes: launch, states of partitions, runs, retry."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.servers import Webserver

_LAUNCH = """mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
    ... on PartitionKeysNotFoundError { message }
  }
}"""
_RETRY = """mutation ($params: ReexecutionParams!) {
  reexecutePartitionBackfill(reexecutionParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
_COUNTS = """query ($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode { partitionStats { numPartitions numMaterialized numFailed numMaterializing } }
  }
}"""
_STATES = """query ($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      assetPartitionStatuses {
        ... on DefaultPartitionStatuses {
          materializedPartitions failedPartitions unmaterializedPartitions materializingPartitions
        }
      }
    }
  }
}"""
_BACKFILL = """query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill {
      status
      assetBackfillData {
        assetBackfillStatuses {
          ... on AssetPartitionsStatusCounts {
            assetKey { path } numPartitionsTargeted numPartitionsMaterialized numPartitionsFailed
          }
        }
      }
    }
  }
}"""
_RUNS = """query ($filter: RunsFilter!) {
  runsOrError(filter: $filter, limit: 1000) {
    ... on Runs { results { runId status creationTime startTime endTime tags { key value } } }
  }
}"""
_LAUNCH_JOB = """mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""


_ENQUEUED = """query ($id: ID!) {
  runOrError(runId: $id) { ... on Run { stats { ... on RunStatsSnapshot { enqueuedTime } } } }
}"""
_SENSORS = """{
  workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError {
    ... on RepositoryLocation { repositories { sensors { id name } } } } } } }
}"""
_STOP_SENSOR = """mutation ($id: String!) {
  stopSensor(id: $id) { __typename ... on PythonError { message } }
}"""


@dataclass(frozen=True)
class Counts:
    """Number of partitions of one asset by state, as its page shows them."""

    total: int
    materialized: int
    failed: int
    in_progress: int


class Timeout(RuntimeError):
    """A condition was not reached in time."""


class Backfills:
    """Does what a user of the UI does, through the webserver's GraphQL API."""

    def __init__(self, webserver: Webserver) -> None:
        self._ask = webserver.ask

    def launch(self, assets: Sequence[str], partitions: Sequence[str]) -> str:
        """Start a backfill of `partitions` of `assets` ("a/b"). Returns its ID."""
        params = {"assetSelection": [_key(asset) for asset in assets], "partitionNames": list(partitions)}
        return self._launched(self._ask(_LAUNCH, params=params)["launchPartitionBackfill"])

    def retry_failed(self, backfill_id: str) -> str:
        """The backfill page's "re-execute from failure". Returns the new backfill's ID."""
        params = {"parentRunId": backfill_id, "strategy": "FROM_FAILURE"}
        return self._launched(self._ask(_RETRY, params=params)["reexecutePartitionBackfill"])

    def launch_job(self, job: str, module: str, run_config: Any) -> str:
        """Start one run of `job` in the code location `module`. Returns the run's ID."""
        selector = {
            "repositoryLocationName": module,
            "repositoryName": "__repository__",
            "jobName": job,
        }
        params = {"selector": selector, "runConfigData": run_config}
        answer = self._ask(_LAUNCH_JOB, params=params)["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise RuntimeError(str(answer))
        return answer["run"]["runId"]

    def counts(self, asset: str) -> Counts:
        answer = self._ask(_COUNTS, key=_key(asset))["assetNodeOrError"]["partitionStats"]
        return Counts(
            answer["numPartitions"],
            answer["numMaterialized"],
            answer["numFailed"],
            answer["numMaterializing"],
        )

    def states(self, asset: str) -> dict[str, set[str]]:
        """Partition keys by state: materialized, failed, unmaterialized, materializing."""
        answer = self._ask(_STATES, key=_key(asset))["assetNodeOrError"]["assetPartitionStatuses"]
        return {name.removesuffix("Partitions"): set(keys) for name, keys in answer.items()}

    def status(self, backfill_id: str) -> dict[str, Any]:
        """The backfill's `status`, and for each asset ("a/b") the partitions targeted, materialized and failed."""
        answer = self._ask(_BACKFILL, id=backfill_id)["partitionBackfillOrError"]
        rows = (answer["assetBackfillData"] or {}).get("assetBackfillStatuses", [])
        return {
            "status": answer["status"],
            "assets": {
                "/".join(row["assetKey"]["path"]): (
                    row["numPartitionsTargeted"],
                    row["numPartitionsMaterialized"],
                    row["numPartitionsFailed"],
                )
                for row in rows
            },
        }

    def runs_of(self, backfill_id: str) -> list[dict[str, Any]]:
        filter_ = {"tags": [{"key": "dagster/backfill", "value": backfill_id}]}
        return self._runs(filter_)

    def run(self, run_id: str) -> dict[str, Any]:
        return self._runs({"runIds": [run_id]})[0]

    def enqueued_at(self, run_id: str) -> float:
        """When the run was enqueued, after its planned partitions had been written."""
        return self._ask(_ENQUEUED, id=run_id)["runOrError"]["stats"]["enqueuedTime"]

    def stop_sensor(self, name: str) -> None:
        """Turn the sensor off. Raises KeyError if it does not exist."""
        sensors = {
            sensor["name"]: sensor["id"]
            for entry in self._ask(_SENSORS)["workspaceOrError"]["locationEntries"]
            for repository in entry["locationOrLoadError"]["repositories"]
            for sensor in repository["sensors"]
        }
        answer = self._ask(_STOP_SENSOR, id=sensors[name])["stopSensor"]
        if answer["__typename"] != "StopSensorMutationResult":
            raise RuntimeError(str(answer))

    def _runs(self, filter_: dict[str, Any]) -> list[dict[str, Any]]:
        runs = self._ask(_RUNS, filter=filter_)["runsOrError"]["results"]
        return [{**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in runs]

    @staticmethod
    def _launched(answer: dict[str, Any]) -> str:
        if answer["__typename"] != "LaunchBackfillSuccess":
            raise RuntimeError(str(answer))
        return answer["backfillId"]


def wait_until(reached: Callable[[], bool], what: str, *, seconds: float, every: float = 0.5) -> float:
    """Call `reached` until it returns true. Returns the seconds that this took."""
    began = time.monotonic()
    while not reached():
        if time.monotonic() - began > seconds:
            raise Timeout(f"{what}: not reached within {seconds:.0f} s")
        time.sleep(every)
    return time.monotonic() - began


def _key(asset: str) -> dict[str, list[str]]:
    return {"path": asset.split("/")}
