"""Reporting many materialized partitions as one batch, from inside an I/O manager or an op.

Writing ten thousand events takes Python seconds, in which the database has nothing to do: a `Reporter` writes a
batch's events while its caller is at the next batch.

What leans on names that Dagster does not publish stands below the line; where one of them is missing, events
go out one by one through `context.log_event`. Not here: deciding which partitions are good.
"""

import logging
import time
import uuid
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

import dagster as dg

try:
    from dagster._core.definitions.data_version import DataVersion, compute_logical_data_version
    from dagster._core.events import (
        AssetMaterializationPlannedData,
        DagsterEvent,
        DagsterEventBatchMetadata,
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
    generator `handle_output` or in the body of a generator op. What a `Reporter` says of its batches holds here.
    """
    with Reporter(context) as reporter:
        reporter.report(materializations)
        yield from reporter.events()


class Reporter:
    """Reports batches of materializations in their order, in a thread of its own. Used by one thread, in a `with`.

    Every partition is reported exactly once: when `handle_output` returns, Dagster reports those partitions of
    the output that were not reported here; when it raises, none. Should nothing be left for it, the last
    materialization is kept back for Dagster to report with its metadata, since an output with no partition left
    would be taken for an unpartitioned one. As a consequence `context.asset_partition_keys` shrinks: read it
    before the first call. The same holds for the other outputs of the step whose materializations come here, if
    their `handle_output` calls `narrow_to_unreported`.

    The events carry the tags that Dagster gives its own (code and data version, input provenance, partition
    dimensions). They are written in batches where `DAGSTER_EVENT_BATCH_SIZE` is set in the environment.
    """

    def __init__(self, context: Context) -> None:
        self._context: Any = context
        self._step: Any = _step_of(context)
        self._under_way: deque[Future[list[DagsterEvent]]] = deque()
        # Of each output of the step that is reported here: the partitions that are left for Dagster.
        self._left = _LEFT.setdefault(self._step, {}) if self._step is not None and BATCHES else {}
        self._keys: list[str] = []
        if isinstance(context, dg.OutputContext) and context.has_asset_key and context.has_asset_partitions:
            self._keys = list(context.asset_partition_keys)

    def __enter__(self) -> "Reporter":
        self._pool = ThreadPoolExecutor(1, "report partitions")
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def report(self, materializations: Sequence[dg.AssetMaterialization]) -> None:
        """Begin to write a batch. Each asset's come after those of the assets that were before it in the batch."""
        by_asset: dict[dg.AssetKey, list[dg.AssetMaterialization]] = {}
        for materialization in materializations:
            by_asset.setdefault(materialization.asset_key, []).append(materialization)
        for asset_key, group in by_asset.items():
            if self._step is None or not BATCHES:
                for materialization in group:
                    self._context.log_event(materialization)
                continue
            if self._keys and asset_key in self._step.get_output_asset_keys():
                group = self._shared_with_dagster(asset_key, group)
            if group:
                self._under_way.append(self._pool.submit(_one_batch, self._step, group))

    def events(self) -> "Iterator[DagsterEvent]":
        """Wait until all that was given is written; the events, for Dagster."""
        while self._under_way:
            yield from self._under_way.popleft().result()

    def describe(self, asset_key: dg.AssetKey, metadata: Mapping[str, Any]) -> None:
        """Add `metadata` to what Dagster is left to report of an asset that is another output of the step."""
        for partition in self._left.get(asset_key, ()):
            self._step.add_asset_metadata(metadata, asset_key, partition)

    def _shared_with_dagster(
        self, asset_key: dg.AssetKey, group: list[dg.AssetMaterialization]
    ) -> list[dg.AssetMaterialization]:
        """Take the partitions out of what Dagster will report itself; return those to report here."""
        left = self._left.setdefault(asset_key, set(self._keys))
        left -= {each.partition for each in group if each.partition is not None}
        last, kept_back = group[-1], False
        if not left and last.partition is not None:
            left.add(last.partition)
            # Dagster's own would lose a description and tags, so that partition is reported twice instead.
            kept_back = not (last.description or last.tags)
        if asset_key == self._context.asset_key and not narrow_to_unreported(self._context):
            kept_back = False
        if not kept_back:
            return group
        self._step.add_asset_metadata(last.metadata, asset_key, last.partition)
        return group[:-1]


def narrow_to_unreported(context: dg.OutputContext) -> bool:
    """Leave Dagster those partitions of the output that have not been reported here in the course of its step."""
    step = _step_of(context)
    left = _LEFT.get(step, {}).get(context.asset_key) if step is not None else None
    return left is not None and _narrow(context, [key for key in context.asset_partition_keys if key in left])


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


# ---------------------------------------------------------------- below: names that Dagster does not publish


# By step, of each of its outputs that a Reporter has reported partitions of: those that are left for Dagster.
_LEFT: WeakKeyDictionary[Any, dict[dg.AssetKey, set[str]]] = WeakKeyDictionary()


def _step_of(context: Any) -> Any | None:
    """The running step, or None outside of one (a context built by a test)."""
    if isinstance(context, dg.OutputContext):
        return getattr(context, "_step_context", None)
    try:
        return context.get_step_execution_context()
    except (AttributeError, dg.DagsterError):
        return None


class _Recorder:
    """What building an event takes of a step, with a log that keeps the event rather than passing it on.

    A step's own log hands every event to the console too, formatted: ten thousand lines that say nothing, and a
    third of the time that reporting takes.
    """

    def __init__(self, step: Any) -> None:
        self.job_name, self.step, self.event_tags, self.log = step.job_name, step.step, step.event_tags, self
        self._step = step

    def log_dagster_event(
        self, level: int, msg: str, dagster_event: "DagsterEvent", batch_metadata: Any = None
    ) -> None:
        entry = dg.EventLogEntry(
            error_info=None,
            level=level,
            user_message=msg,
            run_id=self._step.run_id,
            timestamp=time.time(),
            step_key=dagster_event.step_key,
            job_name=self.job_name,
            dagster_event=dagster_event,
        )
        self._step.instance.handle_new_event(entry, batch_metadata=batch_metadata)


def _one_batch(step: Any, materializations: Sequence[dg.AssetMaterialization]) -> "list[DagsterEvent]":
    """Write the materializations of one asset."""
    # Not before its turn: what an asset is made of may be what was reported a moment ago.
    tags = _tags_of_asset(step, materializations[0].asset_key)
    # Building an event writes it: the batch is closed before the first one is yielded.
    batch, last, recorder = str(uuid.uuid4()), len(materializations) - 1, _Recorder(step)
    return [
        DagsterEvent.asset_materialization(
            recorder,  # type: ignore[arg-type]
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


def _narrow(context: Any, partition_keys: Sequence[str]) -> bool:
    """Make `partition_keys` the output's only partitions; False, and no change, where that does not take."""
    before = getattr(context, "_asset_partitions_subset", None)
    definition = context.asset_partitions_def
    context._asset_partitions_subset = definition.empty_subset().with_partition_keys(partition_keys)
    if set(context.asset_partition_keys) == set(partition_keys):
        return True
    context._asset_partitions_subset = before
    return False
