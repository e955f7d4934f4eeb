"""Reporting many materialized partitions as one batch, from inside an I/O manager or an op.

If this Dagster lacks one of the non-public names that this needs, partitions are reported one by one through
`context.log_event`. Not here: those names (`private`), and which partitions were written.
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
_ANNOUNCED_IN = 0.02  # seconds per partition, measured with the stock storage in Postgres
# By step and output asset: the partitions that Dagster is still to report. Only outputs that a Reporter has reported.
_LEFT: WeakKeyDictionary[Any, dict[dg.AssetKey, set[str]]] = WeakKeyDictionary()


class Reporter:
    """Reports batches of materializations, with one write per asset and batch.

    Call `report` once for each finished batch, as `yield from reporter.report(…)`, in a generator `handle_output` or
    in the body of a generator op.

    Every partition is reported exactly once. When `handle_output` returns, Dagster reports the output's partitions
    that were not reported here; when it raises, Dagster reports none. If no partition is left, the last
    materialization is held back for Dagster to report with its metadata, because Dagster would treat an output
    without partitions as unpartitioned. `context.asset_partition_keys` therefore shrinks: read it before the first
    call. The same applies to other outputs of the step whose materializations are reported here, if their
    `handle_output` calls `narrow_to_unreported`.

    The events have the same content as Dagster's own: the metadata that the asset's code added for its output, for the
    asset and for the partition, the tags and data version of its `Output`, code version, input provenance and
    partition dimensions. Events for another output of the step lack what its own `Output` will carry. They are
    written in batches if `DAGSTER_EVENT_BATCH_SIZE` is set in the environment.
    """

    def __init__(self, context: Context) -> None:
        self._context: Any = context
        self._step: Any = private.step_of(context)
        self._batches = self._step is not None and private.EVENTS
        # By output asset: the partitions that Dagster is still to report.
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
        """Write a batch and return its events for Dagster, in the order of the assets.

        failing: `handle_output` is going to raise, so Dagster will report nothing.
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
            if self._keys and not failing and private.is_output_of(self._step, asset_key):
                group = self._shared_with_dagster(asset_key, group)
            events += self._write(asset_key, group)
        return events

    def describe(self, asset_key: dg.AssetKey, metadata: Mapping[str, Any]) -> None:
        """Add `metadata` to the materializations that Dagster will report for another output asset of the step."""
        for partition in self._left.get(asset_key, ()):
            self._step.add_asset_metadata(metadata, asset_key, partition)

    def _as_dagster_would(self, made: dg.AssetMaterialization) -> dg.AssetMaterialization:
        """Merge in the metadata that the asset's code has added, with Dagster's precedence."""
        key, step = made.asset_key, self._step
        if step is None or not private.is_output_of(step, key):
            return made
        before = self._context.output_metadata if key == self._own else private.output_metadata(step, key)
        after = {**private.asset_metadata(step, key), **private.asset_metadata(step, key, made.partition)}
        if not before and not after:
            return made
        metadata = {**before, **made.metadata, **after}
        return dg.AssetMaterialization(
            key, description=made.description, metadata=metadata, partition=made.partition, tags=made.tags
        )

    def _shared_with_dagster(
        self, asset_key: dg.AssetKey, group: list[dg.AssetMaterialization]
    ) -> list[dg.AssetMaterialization]:
        """Exclude the partitions from those that Dagster will report; return the materializations to report here."""
        left = self._left.setdefault(asset_key, set(self._keys))
        left -= {each.partition for each in group if each.partition is not None}
        last, held_back = group[-1], False
        if not left and last.partition is not None:
            left.add(last.partition)
            # Dagster's event would lack the description and tags, so such a partition is reported twice.
            held_back = not (last.description or last.tags)
        if asset_key == self._own and not narrow_to_unreported(self._context):
            held_back = False
        if not held_back:
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
    """Narrow the output to the partitions that no Reporter has reported in this step, for Dagster to report."""
    step = private.step_of(context)
    left = _LEFT.get(step, {}).get(context.asset_key) if step is not None else None
    return left is not None and private.narrow(
        context, [key for key in context.asset_partition_keys if key in left]
    )


def announce_partitions(
    context: Context, asset_keys: Sequence[dg.AssetKey], partition_keys: Sequence[str]
) -> None:
    """Record that this run will materialize `partition_keys` of each of `asset_keys`.

    For a run that selects its partitions itself, for which Dagster has planned none. The UI shows planned partitions
    as in progress, and those without a materialization when the run fails as failed.
    """
    step = private.step_of(context)
    if step is not None and private.EVENTS:
        _store(step, [private.planned(step, asset, key) for asset in asset_keys for key in partition_keys])


def stock_storage_note(instance: dg.DagsterInstance, partitions: int) -> str:
    """A log message for a wide run on Dagster's own storage, which writes planned events one by one; else empty."""
    if partitions < _WIDE or type(instance.event_log_storage).__module__.startswith("dagster_backfills."):
        return ""
    return (
        f"Dagster's own storage records the {partitions:,} partitions one by one before the run starts, which takes "
        f"about {partitions * _ANNOUNCED_IN:,.0f} s. To shorten that, use BatchedPostgresStorage of "
        "dagster_backfills.instance.storage in dagster.yaml."
    )


def _store(step: Any, events: Sequence[dg.DagsterEvent]) -> None:
    """Store events as one batch. Bypasses the step's log, which would print a line for every partition."""
    for event, of_batch in zip(events, private.batch_of(str(uuid.uuid4()), len(events)), strict=True):
        step.instance.report_dagster_event(event, step.run_id, logging.DEBUG, batch_metadata=of_batch)


def _output_being_stored(name: str) -> dg.Output[Any] | None:
    """The `Output` that the asset's code returned. Dagster passes only its value and metadata to the I/O manager.

    Searches the local variables of Dagster's frames on the call stack. Returns None if it is not there.
    """
    frame = sys._getframe(1)
    while frame is not None and (up := frame.f_back) is not None:
        frame = up
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] == "dagster":
            for value in list(frame.f_locals.values()):
                if isinstance(value, dg.Output) and value.output_name == name:
                    return value
    return None
