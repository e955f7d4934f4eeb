"""Reporting many materialized partitions as one batch, from inside an I/O manager or an op.

What leans on names that Dagster does not publish stands below the line; where one of them is missing, events
go out one by one through `context.log_event`. Not here: deciding which partitions are good.
"""

import logging
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

try:
    from dagster._core.definitions.data_version import DataVersion, compute_logical_data_version
    from dagster._core.events import (
        AssetMaterializationPlannedData,
        DagsterEvent,
        DagsterEventBatchMetadata,
    )
    from dagster._core.execution.context.metadata_logging import (
        AssetMetadataHandle,
        OutputMetadataAccumulator,
    )
    from dagster._core.execution.plan import execute_step as _stock
    from dagster._core.storage.tags import get_multidimensional_partition_tag

    _code_version = _stock._get_code_version
    _input_provenance = _stock._get_input_provenance_data
    _version_tags = _stock._build_data_version_tags
    BATCHES = True
except (ImportError, AttributeError) as missing:  # a Dagster that this was not written for
    warnings.warn(
        f"Materializations are reported one by one: this Dagster has moved a name ({missing})", stacklevel=2
    )
    BATCHES = False


Context = dg.OutputContext | dg.OpExecutionContext | dg.AssetExecutionContext


def materialization_events(
    context: Context,
    materializations: Sequence[dg.AssetMaterialization],
) -> "Iterator[DagsterEvent]":
    """Report `materializations` now, in one write for each asset, and yield their events for Dagster.

    Call it once for each batch that is done, as `yield from materialization_events(context, …)`, in a
    generator `handle_output` or in the body of a generator op. Every partition is reported exactly once: when
    `handle_output` returns, Dagster reports those partitions of the output that were not reported here; when
    it raises, none. Should nothing be left for it, the last materialization of the call is kept back for
    Dagster to report with its metadata, since an output with no partition left would be taken for an
    unpartitioned one. As a consequence `context.asset_partition_keys` shrinks: read it before the first call.

    The events carry the tags that Dagster gives its own (code and data version, input provenance, partition
    dimensions). They are written in batches where `DAGSTER_EVENT_BATCH_SIZE` is set in the environment.
    """
    step = _step_of(context)
    if step is None or not BATCHES:
        for materialization in materializations:
            context.log_event(materialization)
        return
    if isinstance(context, dg.OutputContext):
        materializations = _shared_with_dagster(context, step, materializations)
    by_asset: dict[dg.AssetKey, list[dg.AssetMaterialization]] = {}
    for materialization in materializations:
        by_asset.setdefault(materialization.asset_key, []).append(materialization)
    for asset_key, group in by_asset.items():
        yield from _one_batch(step, group, _tags_of_asset(step, asset_key))


def announce_partitions(
    context: Context, asset_keys: Sequence[dg.AssetKey], partition_keys: Sequence[str]
) -> None:
    """Let Dagster know that this run will materialize `partition_keys` of each of `asset_keys`.

    For a run that finds its partitions itself: Dagster has announced none for it. Announced partitions are
    shown as in progress; those that have no materialization when the run fails are shown as failed.
    """
    step = _step_of(context)
    if step is None or not BATCHES:
        return
    planned = [
        AssetMaterializationPlannedData(asset_key, partition=key, partitions_subset=None)
        for asset_key in asset_keys
        for key in partition_keys
    ]
    batch, last = str(uuid.uuid4()), len(planned) - 1
    for index, data in enumerate(planned):
        step.instance.report_dagster_event(
            DagsterEvent.build_asset_materialization_planned_event(step.job_name, step.step.key, data),
            step.run_id,
            logging.DEBUG,
            batch_metadata=DagsterEventBatchMetadata(batch, index == last),
        )


def leave_partition_metadata(
    context: dg.OutputContext, asset_key: dg.AssetKey, metadata: Mapping[str, Mapping[str, Any]]
) -> None:
    """Leave metadata of partitions for an output that Dagster will report later in the step.

    Like `context.add_asset_metadata` for each of them, which asks the instance for all partitions each time: for
    ten thousand, minutes.
    """
    step = _step_of(context)
    if step is None:
        return
    if not BATCHES:
        for partition, entries in metadata.items():
            step.add_asset_metadata(entries, asset_key, partition)
        return
    left = dict(step._metadata_accumulator.per_output_metadata)
    for partition, entries in metadata.items():
        left[AssetMetadataHandle(asset_key=asset_key, partition_key=partition)] = entries
    step._metadata_accumulator = OutputMetadataAccumulator(per_output_metadata=left)


# ---------------------------------------------------------------- below: names that Dagster does not publish


def _step_of(context: Any) -> Any | None:
    """The running step, or None outside of one (a context built by a test)."""
    if isinstance(context, dg.OutputContext):
        return getattr(context, "_step_context", None)
    try:
        return context.get_step_execution_context()
    except (AttributeError, dg.DagsterError):
        return None


def _one_batch(
    step: Any, materializations: Sequence[dg.AssetMaterialization], tags: Mapping[str, str]
) -> "list[DagsterEvent]":
    # Building an event writes it: the batch is closed before the first one is yielded.
    batch, last = str(uuid.uuid4()), len(materializations) - 1
    return [
        DagsterEvent.asset_materialization(
            step,
            materialization._replace(
                tags={**tags, **_dimension_tags(materialization.partition), **(materialization.tags or {})}
            ),
            DagsterEventBatchMetadata(batch, index == last),
        )
        for index, materialization in enumerate(materializations)
    ]


def _dimension_tags(partition: str | None) -> Mapping[str, str]:
    if not isinstance(partition, dg.MultiPartitionKey):
        return {}
    return {
        get_multidimensional_partition_tag(name): key for name, key in partition.keys_by_dimension.items()
    }


def _tags_of_asset(step: Any, asset_key: dg.AssetKey) -> Mapping[str, str]:
    """What Dagster tags the asset's own materializations with; nothing for one the step does not make."""
    assets = step.job_def.asset_layer
    if not step.is_external_input_asset_version_info_loaded or asset_key not in step.get_output_asset_keys():
        return {}
    if asset_key not in assets.executable_asset_keys:
        return {}
    code, inputs = _code_version(asset_key, step), _input_provenance(asset_key, step)
    if step.has_data_version(asset_key):
        version: DataVersion = step.get_data_version(asset_key)
        return _version_tags(version, code, inputs, True)
    version = compute_logical_data_version(code, {key: each["data_version"] for key, each in inputs.items()})
    return _version_tags(version, code, inputs, False)


def _shared_with_dagster(
    context: dg.OutputContext, step: Any, materializations: Sequence[dg.AssetMaterialization]
) -> Sequence[dg.AssetMaterialization]:
    """Take `materializations` out of what Dagster will report itself; return those to report here."""
    if not (materializations and context.has_asset_key and context.has_asset_partitions):
        return materializations
    mine = [each for each in materializations if each.asset_key == context.asset_key]
    reported = {each.partition for each in mine}
    left = [key for key in context.asset_partition_keys if key not in reported]
    if left or not mine:
        _narrow(context, left)
        return materializations
    kept_back = mine[-1]
    if kept_back.partition is None or kept_back.description or kept_back.tags:
        return materializations  # Dagster's own would lose these, so that partition is reported twice instead
    if not _narrow(context, [kept_back.partition]):
        return materializations
    step.add_asset_metadata(kept_back.metadata, kept_back.asset_key, kept_back.partition)
    return [each for each in materializations if each is not kept_back]


def _narrow(context: Any, partition_keys: Sequence[str]) -> bool:
    """Make `partition_keys` the output's only partitions; False, and no change, where that does not take."""
    before = getattr(context, "_asset_partitions_subset", None)
    definition = context.asset_partitions_def
    context._asset_partitions_subset = definition.empty_subset().with_partition_keys(partition_keys)
    if set(context.asset_partition_keys) == set(partition_keys):
        return True
    context._asset_partitions_subset = before
    return False
