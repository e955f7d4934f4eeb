"""Metadata that an asset's code adds is on each partition, whichever way it is reported."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from dagster_backfills.engine.model import Query, Target, Write, WriteSet
from dagster_backfills_tests.dagster.storing import materializations, materialize

KEYS = ["a", "b", "c", "d", "e"]
PARTS = dg.StaticPartitionsDefinition(KEYS)
OF_DAGSTER = ("dagster/data_version", "dagster/data_version_is_user_provided", "dagster/code_version", "own")


class Stock(dg.IOManager):
    """Leaves all reporting to Dagster."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None: ...

    def load_input(self, context: dg.InputContext) -> None: ...


@pytest.fixture
def table(conn: Any) -> None:
    conn.execute("create schema t; create table t.items (part text primary key, n int)")


def _asset(manager: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=["t", "items"], partitions_def=PARTS, metadata={"partition_expr": "part"}, code_version="7",
        backfill_policy=dg.BackfillPolicy.single_run(), io_manager_key=manager,
    )  # fmt: skip
    def items(context: dg.AssetExecutionContext) -> Iterator[dg.Output[pd.DataFrame]]:
        context.add_output_metadata({"added": 1, "both": "added"})
        context.add_asset_metadata({"of asset": 2})
        for number, key in enumerate(context.partition_keys):
            context.add_asset_metadata({"of partition": number}, partition_key=key)
        yield dg.Output(
            pd.DataFrame({"part": context.partition_keys, "n": 1}),
            metadata={"given": 3, "both": "given"},
            data_version=dg.DataVersion("mine"),
            tags={"own": "tag"},
        )

    return items


def _by_partition(result: dg.ExecuteInProcessResult) -> dict[str | None, Any]:
    """By partition: the metadata that the asset's code added, and the resulting tags."""
    by_partition = {}
    for made in materializations(result, "t/items"):
        names = ("added", "both", "of asset", "of partition", "given")
        values = {name: made.metadata[name].value for name in names if name in made.metadata}
        by_partition[made.partition] = values, {tag: (made.tags or {}).get(tag) for tag in OF_DAGSTER}
    return by_partition


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_every_partition_of_a_range_has_the_metadata_of_its_code(
    database_url: str, table: None, batch: int
) -> None:
    settings = {"batch_units": batch, "max_batch_units": batch, "target_seconds": 0}
    ours = materialize(database_url, _asset("io_manager"), keys=("a", "e"), settings=settings)
    by_partition = _by_partition(ours)
    assert list(by_partition) and set(by_partition) == set(KEYS)
    for number, key in enumerate(KEYS):
        values, tags = by_partition[key]
        assert values == {
            "added": 1,
            "both": "added",
            "of asset": 2,
            "of partition": number,
            "given": 3,
        }
        assert tags == {
            "dagster/data_version": "mine",
            "dagster/data_version_is_user_provided": "true",
            "dagster/code_version": "7",
            "own": "tag",
        }
        [made] = [m for m in materializations(ours, "t/items") if m.partition == key]
        assert made.metadata["rows_inserted"].value == 1


def test_the_metadata_equals_dagsters_own(database_url: str, table: None) -> None:
    ours = materialize(database_url, _asset("io_manager"), keys=("a", "e"))
    asset = dg.with_resources(
        [_asset("stock")], {"stock": dg.IOManagerDefinition.hardcoded_io_manager(Stock())}
    )
    stock = materialize(database_url, *asset, keys=("a", "e"))
    assert _by_partition(ours) == _by_partition(stock)


def test_partitions_reported_before_a_failure_have_the_metadata_too(
    database_url: str, conn: Any, table: None
) -> None:
    conn.execute("alter table t.items add constraint no_c check (part <> 'c')")
    settings = {"batch_units": 1, "target_seconds": 0}
    result = materialize(database_url, _asset("io_manager"), keys=("a", "e"), settings=settings, expect=False)
    by_partition = _by_partition(result)
    assert set(by_partition) == {"a", "b", "d", "e"}
    assert {key: values["of partition"] for key, (values, _) in by_partition.items()} == {
        "a": 0,
        "b": 1,
        "d": 3,
        "e": 4,
    }
    assert {tags["dagster/data_version"] for _, tags in by_partition.values()} == {"mine"}


def test_an_asset_written_with_another_has_its_own_metadata(
    database_url: str, conn: Any, table: None
) -> None:
    conn.execute("create table t.totals (part text primary key, n int)")
    outs = {
        name: dg.AssetOut(key=["t", name], metadata={"partition_expr": "part"})
        for name in ("totals", "items")
    }

    @dg.multi_asset(outs=outs, partitions_def=PARTS, backfill_policy=dg.BackfillPolicy.single_run())
    def both(context: dg.AssetExecutionContext) -> Iterator[dg.Output[Any]]:
        context.add_output_metadata({"added": 1}, output_name="items")
        context.add_asset_metadata({"of partition": 5}, asset_key=["t", "items"], partition_key="b")
        source = Query("select k as part, 1 as n from unnest(%(partition_keys)s::text[]) as k")
        writes = [Write(Target(f"t/{name}", "part"), source) for name in ("totals", "items")]
        yield dg.Output(WriteSet(writes), "totals")
        yield dg.Output(None, "items")

    by_partition = _by_partition(materialize(database_url, both, keys=("a", "e")))
    assert {key: values for key, (values, _) in by_partition.items()} == {
        key: {"added": 1} | ({"of partition": 5} if key == "b" else {}) for key in KEYS
    }


@pytest.mark.parametrize("count", [49, 50])
def test_a_wide_run_on_stock_storage_logs_once_why_it_starts_slowly(
    database_url: str, conn: Any, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("dagster_backfills.dagster.partition_events._WIDE", 50)
    conn.execute("create schema t; create table t.items (part text primary key)")
    keys = [f"k{number:03}" for number in range(count)]

    @dg.asset(
        key=["t", "items"], partitions_def=dg.StaticPartitionsDefinition(keys), metadata={"partition_expr": "part"},
        backfill_policy=dg.BackfillPolicy.single_run(),
    )  # fmt: skip
    def items() -> Query:
        return Query("select k as part from unnest(%(partition_keys)s::text[]) as k")

    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(database_url, items, keys=(keys[0], keys[-1]), instance=instance)
        messages = [entry.user_message for entry in instance.all_logs(result.run_id)]
    notes = [text for text in messages if "one by one before the run starts, which takes about 1 s" in text]
    assert len(notes) == (1 if count == 50 else 0)
