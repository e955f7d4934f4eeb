"""Materializations reported in `handle_output`, compared with those that Dagster reports itself."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from pydantic import Field

from dagster_backfills.dagster import partition_events
from dagster_backfills.dagster import private as dagster_private
from dagster_backfills.dagster.partition_events import announce_partitions
from dagster_backfills_tests.dagster.storing import COHORTS, RANGE, materializations_of


class Reporter(dg.ConfigurableIOManager):
    """Reports partitions in batches of `batch`, except the keys in `bad`, for which it raises at the end."""

    batch: int = 4
    bad: list[str] = Field(default_factory=list)

    def handle_output(self, context: dg.OutputContext, obj: object) -> Iterator[Any]:
        good = [key for key in context.asset_partition_keys if key not in self.bad]
        for start in range(0, len(good), self.batch):
            yield from partition_events.Reporter(context).report(
                [
                    dg.AssetMaterialization(context.asset_key, partition=key, metadata={"rows": len(key)})
                    for key in good[start : start + self.batch]
                ],
            )
        if self.bad:
            raise dg.Failure(f"{len(self.bad)} failed", allow_retries=False)

    def load_input(self, context: dg.InputContext) -> None:
        return None


class Silent(dg.ConfigurableIOManager):
    """Leaves all reporting to Dagster."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        for key in context.asset_partition_keys:
            context.step_context.add_asset_metadata({"rows": len(key)}, context.asset_key, key)

    def load_input(self, context: dg.InputContext) -> None:
        return None


def _assets(partitions_def: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    @dg.asset(key=["up", "stream"], code_version="7")
    def upstream() -> int:
        return 1

    @dg.asset(
        key=["events", "stats"],
        partitions_def=partitions_def,
        code_version="3",
        deps=[["up", "stream"]],
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def stats(context: dg.AssetExecutionContext) -> int:
        return len(context.partition_keys)

    return [upstream, stats]


def _run(
    instance: dg.DagsterInstance,
    io_manager: dg.ConfigurableIOManager,
    start: str,
    end: str,
    partitions_def: dg.PartitionsDefinition = COHORTS,
) -> dg.ExecuteInProcessResult:
    assets = _assets(partitions_def)
    if instance.get_latest_materialization_event(dg.AssetKey(["up", "stream"])) is None:
        dg.materialize(assets, selection=[dg.AssetKey(["up", "stream"])], instance=instance)
    return dg.materialize(
        assets,
        selection=[dg.AssetKey(["events", "stats"])],
        instance=instance,
        resources={"io_manager": io_manager},
        tags=dict(zip(RANGE, (start, end), strict=True)),
        raise_on_error=False,
    )


def _stored(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """The stored entries of a run's materializations by partition, without values that differ between runs."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    entries = [
        # Entries that go through a logger contain the message twice; ours contain it only in the event.
        dg.serialize_value(record.event_log_entry._replace(timestamp=0.0, user_message="")).replace(
            run_id, "the run"
        )
        for record in records
    ]
    return sorted(re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:[\d.]+", "a time", entry) for entry in entries)


def _comparable(each: dg.AssetMaterialization) -> tuple[Any, ...]:
    return (
        each.partition,
        type(each.partition),
        dict(each.metadata),
        dict(each.tags or {}),
        each.description,
    )


@pytest.mark.parametrize(
    ("partitions_def", "keys"),
    [
        (COHORTS, [f"cohort {n}" for n in range(10)]),
        (dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-11"), None),
        (dg.StaticPartitionsDefinition([f"k{n}" for n in range(10)]), None),
        (
            dg.MultiPartitionsDefinition(
                {"a": dg.StaticPartitionsDefinition(["x"]), "b": dg.StaticPartitionsDefinition(list("pqrst"))}
            ),
            None,
        ),
    ],
    ids=["dynamic", "daily", "static", "multi"],
)
def test_what_is_reported_equals_what_dagster_would_have_reported(
    instance: dg.DagsterInstance, partitions_def: dg.PartitionsDefinition, keys: list[str] | None
) -> None:
    if keys:
        instance.add_dynamic_partitions("events_cohorts", keys)
    keys = keys or list(partitions_def.get_partition_keys())

    stock = _run(instance, Silent(), keys[0], keys[-1], partitions_def)
    ours = _run(instance, Reporter(batch=3), keys[0], keys[-1], partitions_def)

    assert stock.success and ours.success
    theirs = sorted(_comparable(each) for each in materializations_of(instance, stock.run_id))
    mine = sorted(_comparable(each) for each in materializations_of(instance, ours.run_id))
    assert len(mine) == len(keys)
    assert mine == theirs
    assert _stored(instance, ours.run_id) == _stored(instance, stock.run_id)
    assert all(tags for _, _, _, tags, _ in mine)


def test_each_partition_is_reported_once_whatever_the_batch_size(instance: dg.DagsterInstance) -> None:
    keys = [f"c{n:02}" for n in range(7)]
    instance.add_dynamic_partitions("events_cohorts", keys)
    for batch in (1, 3, 7, 100):
        result = _run(instance, Reporter(batch=batch), keys[0], keys[-1])
        assert result.success
        reported = Counter(each.partition for each in materializations_of(instance, result.run_id))
        assert reported == Counter(keys)


def test_a_failure_after_reporting_leaves_only_the_unreported_partitions_unmaterialized(
    instance: dg.DagsterInstance,
) -> None:
    keys = [f"c{n:02}" for n in range(20)]
    instance.add_dynamic_partitions("events_cohorts", keys)

    result = _run(instance, Reporter(bad=["c03", "c19"]), keys[0], keys[-1])

    assert not result.success
    assert set(keys) - instance.get_materialized_partitions(dg.AssetKey(["events", "stats"])) == {
        "c03",
        "c19",
    }
    shown = _shown(instance, keys)
    assert {key for key in keys if shown[key] == "FAILED"} == {"c03", "c19"}


def test_events_are_yielded_to_dagster_as_well_as_stored(instance: dg.DagsterInstance) -> None:
    keys = ["a", "b", "c"]
    instance.add_dynamic_partitions("events_cohorts", keys)
    result = _run(instance, Reporter(batch=2), "a", "c")
    yielded = result.asset_materializations_for_node("events__stats")
    assert sorted(str(each.partition) for each in yielded) == keys


def test_several_assets_in_one_call_each_keep_their_own_last_event(instance: dg.DagsterInstance) -> None:
    @dg.op
    def repair(context: dg.OpExecutionContext) -> Iterator[Any]:
        yield from partition_events.Reporter(context).report(
            [dg.AssetMaterialization([name], partition=key) for key in "pqr" for name in ("first", "second")],
        )
        yield dg.Output(None)

    @dg.job
    def repairs() -> None:
        repair()

    result = repairs.execute_in_process(instance=instance)

    assert result.success
    for name in ("first", "second"):
        assert instance.get_materialized_partitions(dg.AssetKey([name])) == {"p", "q", "r"}
        latest = instance.get_latest_materialization_event(dg.AssetKey([name]))
        assert latest and latest.asset_materialization
        assert latest.asset_materialization.asset_key == dg.AssetKey([name])
        assert latest.asset_materialization.partition == "r"


def test_a_run_that_selects_its_own_partitions_shows_exactly_the_failed_ones(
    instance: dg.DagsterInstance,
) -> None:
    keys = [f"c{n:02}" for n in range(12)]
    instance.add_dynamic_partitions("events_cohorts", keys)
    key = dg.AssetKey(["events", "stats"])
    assert _run(instance, Reporter(), keys[0], keys[-1]).success
    scattered, bad = keys[::3], {"c03", "c09"}

    @dg.op
    def repair(context: dg.OpExecutionContext) -> Iterator[Any]:
        announce_partitions(context, [key], scattered)
        shown = _shown(instance, keys)
        assert {name for name in keys if shown[name] == "IN_PROGRESS"} == set(scattered)
        good = [dg.AssetMaterialization(key, partition=name) for name in scattered if name not in bad]
        yield from partition_events.Reporter(context).report(good)
        raise dg.Failure("2 failed", allow_retries=False)

    @dg.job
    def repairs() -> None:
        repair()

    assert not repairs.execute_in_process(instance=instance, raise_on_error=False).success

    shown = _shown(instance, keys)
    assert {name for name in keys if shown[name] == "FAILED"} == bad
    assert {name for name in keys if shown[name] == "MATERIALIZED"} == set(keys) - bad


def _shown(instance: dg.DagsterInstance, keys: list[str]) -> dict[str, str | None]:
    """Each partition's state, as in the UI."""
    statuses = instance.get_status_by_partition(dg.AssetKey(["events", "stats"]), keys, COHORTS) or {}
    return {key: status.value if status else None for key, status in statuses.items()}


def test_outside_of_a_run_the_materializations_are_logged_on_the_context() -> None:
    context = dg.build_output_context(asset_key=dg.AssetKey("x"))
    made = dg.AssetMaterialization("x", partition="1")
    assert partition_events.Reporter(context).report([made]) == []
    assert context.get_logged_events() == [made]


def test_without_the_private_names_every_partition_is_still_reported(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dagster_private, "EVENTS", False)
    keys = [f"c{n}" for n in range(6)]
    instance.add_dynamic_partitions("events_cohorts", keys)

    result = _run(instance, Reporter(bad=["c2"]), keys[0], keys[-1])

    assert not result.success
    assert instance.get_materialized_partitions(dg.AssetKey(["events", "stats"])) == set(keys) - {"c2"}
