"""Reporting many materialized partitions as one batch, from inside an I/O manager or an op.

Not here: deciding which partitions are good, and what leans on names that Dagster does not publish (`private`).
Where one of those is missing, partitions are reported one by one through `context.log_event`.
"""

import logging
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import dagster as dg

from dagster_backfills.dagster import private

Context = dg.OutputContext | dg.OpExecutionContext | dg.AssetExecutionContext

_WIDE = 500
_ANNOUNCED_IN = 0.02  # seconds a partition, as measured with the stock storage in Postgres
# By step, of each of its outputs that a Reporter has reported partitions of: those that are left for Dagster.
_LEFT: WeakKeyDictionary[Any, dict[dg.AssetKey, set[str]]] = WeakKeyDictionary()


class Reporter:
    """Reports batches of materializations, each in one write for each asset.

    Call `report` once for each batch that is done, as `yield from reporter.report(…)`, in a generator `handle_output`
    or in the body of a generator op.

    Every partition is reported exactly once: when `handle_output` returns, Dagster reports those partitions of
    the output that were not reported here; when it raises, none. Should nothing be left for it, the last
    materialization is kept back for Dagster to report with its metadata, since an output with no partition left
    would be taken for an unpartitioned one. As a consequence `context.asset_partition_keys` shrinks: read it
    before the first call. The same holds for the other outputs of the step whose materializations come here, if
    their `handle_output` calls `narrow_to_unreported`.

    The events say what Dagster's own would: the metadata that the asset's code gave for its output, for the asset
    and for the partition, the tags and the data version that it gave with its `Output`, code version, input
    provenance and partition dimensions. Of another output of the step they say what was known when they were
    written: not yet what its own `Output` carries. They are written in batches where `DAGSTER_EVENT_BATCH_SIZE` is
    set in the environment.
    """

    def __init__(self, context: Context) -> None:
        self._context: Any = context
        self._step: Any = private.step_of(context)
        self._batches = self._step is not None and private.EVENTS
        # Of each output of the step that is reported here: the partitions that are left for Dagster.
        self._left = _LEFT.setdefault(self._step, {}) if self._batches else {}
        self._keys: list[str] = []
        self._own: dg.AssetKey | None = None
        self._output: dg.Output[Any] | None = None
        if isinstance(context, dg.OutputContext) and context.has_asset_key:
            self._own = context.asset_key
            self._output = _output_being_stored(context.name) if self._step is not None else None
            if context.has_asset_partitions:
                self._keys = list(context.asset_partition_keys)

    def report(
        self, materializations: Sequence[dg.AssetMaterialization], *, failing: bool = False
    ) -> list[dg.DagsterEvent]:
        """Write a batch; the events, for Dagster. Each asset's come after those of the assets before it.

        failing: `handle_output` is going to raise, so that nothing is left for Dagster to report.
        """
        by_asset: dict[dg.AssetKey, list[dg.AssetMaterialization]] = {}
        for materialization in materializations:
            by_asset.setdefault(materialization.asset_key, []).append(self._as_dagster_would(materialization))
        events: list[dg.DagsterEvent] = []
        for asset_key, group in by_asset.items():
            if not self._batches:
                for materialization in group:
                    self._context.log_event(materialization)
                continue
            if self._keys and not failing and private.makes(self._step, asset_key):
                group = self._shared_with_dagster(asset_key, group)
            events += self._write(asset_key, group)
        return events

    def describe(self, asset_key: dg.AssetKey, metadata: Mapping[str, Any]) -> None:
        """Add `metadata` to what Dagster is left to report of an asset that is another output of the step."""
        for partition in self._left.get(asset_key, ()):
            self._step.add_asset_metadata(metadata, asset_key, partition)

    def _as_dagster_would(self, made: dg.AssetMaterialization) -> dg.AssetMaterialization:
        """With what the asset's code has said, which goes before or after what is said here as it does in Dagster."""
        key, step = made.asset_key, self._step
        if step is None or not private.makes(step, key):
            return made
        before = self._context.output_metadata if key == self._own else private.said_of_output(step, key)
        after = {**private.said_of(step, key), **private.said_of(step, key, made.partition)}
        if not before and not after:
            return made
        metadata = {**before, **made.metadata, **after}
        return dg.AssetMaterialization(
            key, description=made.description, metadata=metadata, partition=made.partition, tags=made.tags
        )

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
        if asset_key == self._own and not narrow_to_unreported(self._context):
            kept_back = False
        if not kept_back:
            return group
        self._step.add_asset_metadata(last.metadata, asset_key, last.partition)
        return group[:-1]

    def _write(
        self, asset_key: dg.AssetKey, materializations: Sequence[dg.AssetMaterialization]
    ) -> list[dg.DagsterEvent]:
        """Write the materializations of one asset."""
        output = self._output if asset_key == self._own else None
        tags = {
            **private.version_tags(self._step, asset_key, output and output.data_version),
            **(output.tags if output and output.tags else {}),
        }
        events = [
            private.materialized(
                self._step,
                made._replace(tags={**tags, **private.dimension_tags(made.partition), **(made.tags or {})}),
            )
            for made in materializations
        ]
        _store(self._step, events)
        return events


def narrow_to_unreported(context: dg.OutputContext) -> bool:
    """Leave Dagster those partitions of the output that have not been reported here in the course of its step."""
    step = private.step_of(context)
    left = _LEFT.get(step, {}).get(context.asset_key) if step is not None else None
    return left is not None and private.narrow(
        context, [key for key in context.asset_partition_keys if key in left]
    )


def announce_partitions(
    context: Context, asset_keys: Sequence[dg.AssetKey], partition_keys: Sequence[str]
) -> None:
    """Let Dagster know that this run will materialize `partition_keys` of each of `asset_keys`.

    For a run that finds its partitions itself: Dagster has announced none for it. Announced partitions are
    shown as in progress; those that have no materialization when the run fails are shown as failed.
    """
    step = private.step_of(context)
    if step is not None and private.EVENTS:
        _store(step, [private.planned(step, asset, key) for asset in asset_keys for key in partition_keys])


def stock_storage_note(instance: dg.DagsterInstance, partitions: int) -> str:
    """What is to be said of a wide run where Dagster's own storage writes its events one by one; else nothing."""
    if partitions < _WIDE or type(instance.event_log_storage).__module__.startswith("dagster_backfills."):
        return ""
    return (
        f"{partitions:,} partitions: with Dagster's own storage each is announced by itself before the run starts, "
        f"{partitions * _ANNOUNCED_IN:,.0f} s or so. Where that is too long, name BatchedPostgresStorage of "
        "dagster_backfills.instance.storage in dagster.yaml."
    )


def _store(step: Any, events: Sequence[dg.DagsterEvent]) -> None:
    """Store events together. Past the step's own log, which would print a line for each of ten thousand."""
    for event, of_batch in zip(events, private.batch_of(str(uuid.uuid4()), len(events)), strict=True):
        step.instance.report_dagster_event(event, step.run_id, logging.DEBUG, batch_metadata=of_batch)


def _output_being_stored(name: str) -> dg.Output[Any] | None:
    """What the asset's code returned, on its way to the I/O manager. Dagster hands over its value and metadata alone.

    Found where it is held: by whoever called `handle_output`. None where nobody there holds it.
    """
    frame = sys._getframe(1)
    while frame is not None and (up := frame.f_back) is not None:
        frame = up
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] == "dagster":
            for value in list(frame.f_locals.values()):
                if isinstance(value, dg.Output) and value.output_name == name:
                    return value
    return None
