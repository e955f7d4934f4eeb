"""All uses of Dagster's non-public names, each with a fallback for Dagster versions that lack it.

`docs/private-names.md` lists them.
"""

import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_backfills.errors import NotUsableError

if TYPE_CHECKING:  # used as types only, so they need no fallback
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition as UnresolvedAssetJobDefinition,
    )
    from dagster._core.launcher import CheckRunHealthResult as CheckRunHealthResult
    from dagster._core.launcher import RunLauncher as RunLauncher
    from dagster._core.scheduler.instigation import InstigatorState as InstigatorState

try:
    from dagster._core.events import (
        AssetMaterializationPlannedData,
        DagsterEventBatchMetadata,
        StepMaterializationData,
    )

    EVENTS: Any = True
except ImportError as missing:
    warnings.warn(
        f"Partitions are reported one by one: this Dagster version lacks a name ({missing}).", stacklevel=2
    )
    EVENTS = False

try:
    from dagster._core.definitions.data_version import compute_logical_data_version
    from dagster._core.execution.plan import execute_step as _stock
    from dagster._core.storage.tags import get_multidimensional_partition_tag

    _code_version = _stock._get_code_version
    _input_provenance = _stock._get_input_provenance_data
    _version_tags = _stock._build_data_version_tags
    TAGS: Any = True
except (ImportError, AttributeError) as missing:
    warnings.warn(
        f"Materializations have no data version: this Dagster lacks a name ({missing}).", stacklevel=2
    )
    TAGS = False


def step_of(context: Any) -> Any | None:
    """The running step's context. None if there is none, as in a test, or if it is not accessible."""
    if isinstance(context, dg.OutputContext):
        return getattr(context, "_step_context", None)
    try:
        return context.get_step_execution_context()
    except (AttributeError, dg.DagsterError):
        return None


def materialized(step: Any, materialization: dg.AssetMaterialization) -> dg.DagsterEvent:
    """The event that Dagster would store for a materialization. Does not store it. Needs `EVENTS`."""
    return dg.DagsterEvent(
        event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name=step.job_name,
        step_handle=step.step.handle,
        node_handle=step.step.node_handle,
        step_kind_value=step.step.kind.value,
        logging_tags=step.event_tags,
        event_specific_data=StepMaterializationData(materialization),
        message=materialization.description or f"Materialized value {materialization.label}.",
        pid=os.getpid(),
    )


def planned(step: Any, asset_key: dg.AssetKey, partition: str) -> dg.DagsterEvent:
    """The event that a run is going to materialize a partition. Does not store it. Needs `EVENTS`."""
    data = AssetMaterializationPlannedData(asset_key, partition=partition, partitions_subset=None)
    return dg.DagsterEvent.build_asset_materialization_planned_event(step.job_name, step.step.key, data)


def batch_of(batch_id: str, total: int) -> Iterator[Any]:
    """Batch metadata for `total` consecutive events, which makes the event log store them together."""
    return (DagsterEventBatchMetadata(batch_id, number == total) for number in range(1, total + 1))


def version_tags(step: Any, asset_key: dg.AssetKey, given: Any | None) -> Mapping[str, str]:
    """The data version tags that Dagster gives the asset's materializations; none if the step has no such output.

    given: the data version that the asset's code set on its output.
    """
    if not TAGS or not step.is_external_input_asset_version_info_loaded or not is_output_of(step, asset_key):
        return {}
    if asset_key not in step.job_def.asset_layer.executable_asset_keys:
        return {}
    code, inputs = _code_version(asset_key, step), _input_provenance(asset_key, step)
    if given is None and step.has_data_version(asset_key):
        given = step.get_data_version(asset_key)
    computed = {key: each["data_version"] for key, each in inputs.items()}
    version = compute_logical_data_version(code, computed) if given is None else given
    return _version_tags(version, code, inputs, given is not None)


def dimension_tags(partition: str | None) -> Mapping[str, str]:
    """The tags for the dimensions of a multi-dimensional partition."""
    if not TAGS or not isinstance(partition, dg.MultiPartitionKey):
        return {}
    return {
        get_multidimensional_partition_tag(name): key for name, key in partition.keys_by_dimension.items()
    }


def is_output_of(step: Any, asset_key: dg.AssetKey) -> bool:
    """Whether the asset is an output of the step."""
    return asset_key in getattr(step, "get_output_asset_keys", tuple)()


def asset_metadata(step: Any, asset_key: dg.AssetKey, partition: str | None = None) -> Mapping[str, Any]:
    """The metadata that the asset's code has added with `add_asset_metadata`."""
    getter = getattr(step, "get_asset_metadata", None)
    return (getter(asset_key, partition) if getter else None) or {}


def output_metadata(step: Any, asset_key: dg.AssetKey) -> Mapping[str, Any]:
    """The metadata that the asset's code has added with `add_output_metadata` to another output of the step."""
    try:
        return step.get_output_metadata(step.assets_def.get_output_name_for_asset_key(asset_key)) or {}
    except AttributeError:
        return {}


def evaluated(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: str, result: dg.AssetCheckResult, name: str
) -> dg.AssetCheckEvaluation:
    """The evaluation of a check for one partition, on its latest materialization, so Dagster shows it as current."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition]), limit=1
    ).records
    target = None
    with suppress(ImportError):
        from dagster._core.definitions.asset_checks import asset_check_evaluation

        if records:
            target = asset_check_evaluation.AssetCheckEvaluationTargetMaterializationData(
                storage_id=records[0].storage_id, run_id=records[0].run_id, timestamp=records[0].timestamp
            )
    return dg.AssetCheckEvaluation(
        key,
        name,
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
        partition=partition,
        target_materialization_data=target,
    )


def next_tick(cron: str | Sequence[str], timezone: str | None, now: datetime) -> datetime | None:
    """The next time that the daemon starts a schedule; None if this Dagster version lacks the name for it."""
    try:
        from dagster._utils.schedules import schedule_execution_time_iterator
    except ImportError:
        return None
    times = schedule_execution_time_iterator(now.timestamp(), cron, timezone)
    return next(iter(times)).astimezone(UTC)


def narrow(context: Any, partition_keys: Sequence[str]) -> bool:
    """Make `partition_keys` the output's only partitions. Returns False, without a change, if that has no effect."""
    before = getattr(context, "_asset_partitions_subset", None)
    definition = context.asset_partitions_def
    context._asset_partitions_subset = definition.empty_subset().with_partition_keys(partition_keys)
    if set(context.asset_partition_keys) == set(partition_keys):
        return True
    context._asset_partitions_subset = before
    return False


def event_log_url(instance: dg.DagsterInstance) -> str | None:
    """The libpq URL of the instance's event log; None if it is not in Postgres."""
    url: str | None = getattr(instance.event_log_storage, "postgres_url", None)
    if url is None:
        return None
    head, _, query = re.sub(r"^postgres(ql)?\+\w+://", "postgresql://", url).partition("?")
    kept = [each for each in query.split("&") if each and not each.startswith("plugin=")]
    return "?".join(filter(None, [head, "&".join(kept)]))


def replace_webserver_of_dev(module: str) -> None:
    """Make `dagster dev`, in this process, start this module instead of `dagster_webserver`."""
    try:
        dev = importlib.import_module("dagster._cli.dev")
        start = dev.open_ipc_subprocess
    except (ImportError, AttributeError) as missing:
        warnings.warn(
            f"The UI does not authenticate users: this Dagster version lacks a name ({missing}).",
            stacklevel=2,
        )
        return

    def started(command: Sequence[str], **settings: Any) -> Any:
        return start([module if word == "dagster_webserver" else word for word in command], **settings)

    vars(dev)["open_ipc_subprocess"] = started


def health_answers() -> tuple[Any, Any] | None:
    """Run monitoring's result class and status enum; None if this Dagster version lacks them."""
    try:
        from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
    except ImportError:
        return None
    return CheckRunHealthResult, WorkerStatus


def origin_in_location(location: str, repository: str, job: str) -> Any | None:
    """The origin of a job in its code location. Runs that have it are on the Timeline and can be re-executed.

    None if this Dagster version lacks a name; the run then belongs to no code location.
    """
    try:
        from dagster._core.remote_origin import (
            RegisteredCodeLocationOrigin,
            RemoteJobOrigin,
            RemoteRepositoryOrigin,
        )
    except ImportError:
        return None
    return RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(location), repository), job)


def command_of_run(run_id: str, job_code_origin: Any) -> list[str]:
    """The command `dagster api execute_run`, which executes a recorded run in the instance of DAGSTER_HOME."""
    try:
        from dagster._grpc.types import ExecuteRunArgs
    except ImportError as error:
        message = "This Dagster version can't execute a recorded run from the command line."
        raise NotUsableError(message, "Launch the job in the UI: backfills up") from error
    request = dg.serialize_value(ExecuteRunArgs(job_code_origin, run_id, None))
    return [sys.executable, "-m", "dagster", "api", "execute_run", request]
