"""Assets that one step writes together: all are reported with the first output, each with its own values."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from dagster_backfills.dagster import partition_events
from dagster_backfills.dagster.partition_events import (
    narrow_to_unreported,
)
from dagster_backfills_tests.dagster.storing import COHORTS, RANGE, materializations_of

PAIR = (dg.AssetKey(["pair", "rows"]), dg.AssetKey(["pair", "counts"]))


class PairReporter(dg.ConfigurableIOManager):
    """Reports both assets of a step with the first output, like a write set."""

    ours: bool
    bad: list[str] = Field(default_factory=list)

    def handle_output(self, context: dg.OutputContext, obj: object) -> Iterator[Any]:
        if not self.ours:
            for key in context.asset_partition_keys:
                context.step_context.add_asset_metadata({"rows": len(key)}, context.asset_key, key)
            return
        if obj is None:
            narrow_to_unreported(context)
            return
        good = [key for key in context.asset_partition_keys if key not in self.bad]
        reporter = partition_events.Reporter(context)
        for start in range(0, len(good), 3):
            yield from reporter.report(
                [
                    dg.AssetMaterialization(asset, partition=key, metadata={"rows": len(key)})
                    for asset in PAIR
                    for key in good[start : start + 3]
                ]
            )
        if self.bad:
            raise dg.Failure("some failed", allow_retries=False)
        reporter.describe(PAIR[1], {"total": len(good)})

    def load_input(self, context: dg.InputContext) -> None:
        return None


def _run_pair(instance: dg.DagsterInstance, keys: list[str], **config: Any) -> dg.ExecuteInProcessResult:
    @dg.multi_asset(
        outs={"rows": dg.AssetOut(key=PAIR[0]), "counts": dg.AssetOut(key=PAIR[1])},
        internal_asset_deps={"rows": set(), "counts": {PAIR[0]}},
        partitions_def=COHORTS,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def pair() -> Iterator[dg.Output[int | None]]:
        yield dg.Output(1, "rows")
        yield dg.Output(None, "counts")

    return dg.materialize(
        [pair],
        instance=instance,
        resources={"io_manager": PairReporter(**config)},
        tags=dict(zip(RANGE, (keys[0], keys[-1]), strict=True)),
        raise_on_error=False,
    )


def test_other_outputs_of_a_step_are_reported_with_the_first_and_only_once(
    instance: dg.DagsterInstance,
) -> None:
    keys = [f"c{n:02}" for n in range(10)]
    instance.add_dynamic_partitions("events_cohorts", keys)
    stock, ours = _run_pair(instance, keys, ours=False), _run_pair(instance, keys, ours=True)
    assert stock.success and ours.success
    mine = materializations_of(instance, ours.run_id)
    assert Counter((each.asset_key, each.partition) for each in mine) == Counter(
        (asset, key) for asset in PAIR for key in keys
    )
    described = [each for each in mine if "total" in each.metadata]
    assert [(each.asset_key, dict(each.metadata)["total"].value) for each in described] == [(PAIR[1], 10)]

    def comparable(each: dg.AssetMaterialization, run_id: str) -> tuple[Any, ...]:
        # Without a code version, Dagster uses the run's ID; an event's number is that of its row.
        tags = {name: value for name, value in (each.tags or {}).items() if "input_event_pointer" not in name}
        hashed = {name for name in tags if "data_version" in name}
        plain = {name: value.replace(run_id, "run") for name, value in tags.items() if name not in hashed}
        return (
            each.asset_key,
            each.partition,
            each.metadata["rows"].value,
            sorted(plain.items()),
            sorted(hashed),
        )

    theirs = materializations_of(instance, stock.run_id)
    assert sorted(comparable(each, ours.run_id) for each in mine) == sorted(
        comparable(each, stock.run_id) for each in theirs
    )
    versions = {(each.tags or {})["dagster/data_version"] for each in mine if each.asset_key == PAIR[0]}
    made_of = {
        (each.tags or {})["dagster/input_data_version/pair/rows"]
        for each in mine
        if each.asset_key == PAIR[1]
    }
    assert made_of == versions


def test_after_a_failure_other_outputs_keep_their_reported_partitions(instance: dg.DagsterInstance) -> None:
    keys = [f"c{n:02}" for n in range(10)]
    instance.add_dynamic_partitions("events_cohorts", keys)
    assert not _run_pair(instance, keys, ours=True, bad=["c04"]).success
    for asset in PAIR:
        assert set(keys) - instance.get_materialized_partitions(asset) == {"c04"}
