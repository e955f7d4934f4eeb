"""Storing what assets return: partitions of every kind, empty results, concurrent writers, metadata."""

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from dagster_backfills.dagster.io_manager import PostgresIOManager
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.engine.model import Compute, Query, Target, Write, WriteSet
from dagster_backfills_tests.dagster.storing import (
    failure_description,
    frame,
    items,
    materialize,
    materialized,
    metadata,
    rows,
)


class TestPartitions:
    def test_an_asset_without_partitions_holds_exactly_what_it_returned(self, database_url, conn, table):
        held = [frame(("a", 1, "x"), ("b", 2, "y")), frame(("b", 2, "z"))]
        asset = items(lambda: held.pop(0), metadata={})
        first = materialize(database_url, asset)
        assert rows(conn, table) == [("a", 1, "x"), ("b", 2, "y")]
        second = materialize(database_url, asset)
        assert rows(conn, table) == [("b", 2, "z")]
        assert metadata(first, "t/items")["dagster/row_count"] == 2
        assert {k: v for k, v in metadata(second, "t/items").items() if k.startswith("rows_")} == {
            "rows_inserted": 0,
            "rows_updated": 1,
            "rows_unchanged": 0,
            "rows_deleted": 1,
        }

    def test_a_static_partition_is_replaced_and_the_others_are_untouched(self, database_url, conn, table):
        conn.execute("insert into t.items values ('a', 1, 'old'), ('a', 2, 'gone'), ('b', 1, 'kept')")
        asset = items(
            lambda: frame(("a", 1, "new")), partitions_def=dg.StaticPartitionsDefinition(["a", "b"])
        )
        result = materialize(database_url, asset, partition_key="a")
        assert rows(conn, table) == [("a", 1, "new"), ("b", 1, "kept")]
        assert metadata(result, "t/items", "a")["rows_deleted"] == 1
        assert metadata(result, "t/items", "a")["dagster/partition_row_count"] == 1

    def test_a_dynamic_partition_is_written_by_a_query_that_binds_its_key(self, database_url, conn, table):
        definition = dg.DynamicPartitionsDefinition(name="parts")
        asset = items(
            lambda: Query("select k as part, 1 as id, upper(k) as v from unnest(:partition_keys::text[]) k".replace(
                ":partition_keys", "%(partition_keys)s"
            )),
            partitions_def=definition,
        )  # fmt: skip
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions("parts", ["x", "y"])
            materialize(database_url, asset, partition_key="y", instance=instance)
        assert rows(conn, table) == [("y", 1, "Y")]

    def test_a_range_of_partitions_is_one_run_that_reports_each_once(self, database_url, conn, table):
        keys = [f"k{n}" for n in range(20)]
        asset = items(
            lambda: Query(
                "select k as part, n as id, k as v from unnest(%(partition_keys)s::text[]) k, generate_series(1, 3) n"
            ),
            partitions_def=dg.StaticPartitionsDefinition(keys),
            backfill_policy=dg.BackfillPolicy.single_run(),
        )
        result = materialize(database_url, asset, keys=("k3", "k12"), settings={"batch_units": 2})
        assert materialized(result, "t/items") == {k: 1 for k in keys[3:13]}
        assert {part for part, _, _ in rows(conn, table)} == set(keys[3:13])
        assert metadata(result, "t/items", "k4")["rows_inserted"] == 3

    def test_days_in_a_date_column(self, database_url, conn):
        conn.execute("create schema t; create table t.daily (day date, id int, primary key (day, id))")
        conn.execute("insert into t.daily values ('2024-01-01', 1), ('2024-01-02', 7), ('2024-01-03', 1)")
        asset = dg.asset(
            key_prefix="t", name="daily", metadata={"partition_expr": "day"},
            partitions_def=dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-02-01"),
        )(lambda: pd.DataFrame({"day": [pd.Timestamp("2024-01-02").date()], "id": [2]}))  # fmt: skip
        materialize(database_url, asset, partition_key="2024-01-02")
        assert [(str(d), i) for d, i in rows(conn, "t.daily")] == [
            ("2024-01-01", 1), ("2024-01-02", 2), ("2024-01-03", 1),
        ]  # fmt: skip

    def test_days_whose_keys_have_another_format_than_their_dates(self, database_url, conn):
        conn.execute("create schema t; create table t.daily (day date primary key)")
        asset = dg.asset(
            key_prefix="t", name="daily", metadata={"partition_expr": "day"},
            partitions_def=dg.DailyPartitionsDefinition("01.02.2024", fmt="%d.%m.%Y", timezone="America/New_York"),
            backfill_policy=dg.BackfillPolicy.single_run(),
        )(lambda: Query("select generate_series('2024-02-03'::date, '2024-02-05', '1 day')::date as day"))  # fmt: skip
        result = materialize(database_url, asset, keys=("03.02.2024", "05.02.2024"))
        assert materialized(result, "t/daily") == {"03.02.2024": 1, "04.02.2024": 1, "05.02.2024": 1}
        assert metadata(result, "t/daily", "04.02.2024")["rows_inserted"] == 1

    @pytest.mark.parametrize(
        ("definition", "key", "inside", "outside"),
        [
            (dg.DailyPartitionsDefinition("2024-01-01"), "2024-01-02",
             ["2024-01-02 00:00+00", "2024-01-02 23:59:59.999999+00"],
             ["2024-01-01 23:59:59.999999+00", "2024-01-03 00:00+00"]),
            (dg.HourlyPartitionsDefinition("2024-01-01-00:00"), "2024-01-02-05:00",
             ["2024-01-02 05:00+00"], ["2024-01-02 06:00+00", "2024-01-02 04:59+00"]),
            (dg.MonthlyPartitionsDefinition("2024-01-01"), "2024-02-01",
             ["2024-02-01 00:00+00", "2024-02-29 12:00+00"], ["2024-01-31 23:00+00", "2024-03-01 00:00+00"]),
            (dg.DailyPartitionsDefinition("2024-01-01", timezone="America/New_York"), "2024-01-02",
             ["2024-01-02 05:00+00", "2024-01-03 04:59+00"], ["2024-01-02 04:59+00", "2024-01-03 05:00+00"]),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("type_", ["timestamptz", "timestamp"])
    def test_windows_of_a_point_in_time(self, database_url, conn, definition, key, inside, outside, type_):
        conn.execute(f"create schema t; create table t.events (at {type_} primary key, v int)")
        conn.execute("set timezone = 'UTC'")
        for at in inside + outside:
            conn.execute("insert into t.events values (%s, 0)", [at])
        asset = dg.asset(
            key_prefix="t", name="events", metadata={"partition_expr": "at"}, partitions_def=definition
        )(lambda: Query("select %(window_start)s::timestamptz as at, 1 as v"))
        result = materialize(database_url, asset, partition_key=key)
        assert sorted(v for _, v in rows(conn, "t.events")) == [0, 0, 1][-len(outside) - 1 :]
        assert conn.execute("select count(*) from t.events where v = 0").fetchone() == (len(outside),)
        assert metadata(result, "t/events", key)["dagster/partition_row_count"] == 1

    def test_a_range_of_hours_keeps_each_hours_rows_apart(self, database_url, conn):
        conn.execute("create schema t; create table t.events (at timestamptz primary key)")
        asset = dg.asset(
            key_prefix="t", name="events", metadata={"partition_expr": "at"},
            partitions_def=dg.HourlyPartitionsDefinition("2024-01-01-00:00"),
            backfill_policy=dg.BackfillPolicy.single_run(),
        )(lambda: Query(
            "select generate_series(%(window_start)s, %(window_end)s - interval '1 minute', '10 minutes') as at"
        ))  # fmt: skip
        result = materialize(database_url, asset, keys=("2024-01-01-02:00", "2024-01-01-07:00"))
        assert len(rows(conn, "t.events")) == 36
        for hour in range(2, 8):
            assert metadata(result, "t/events", f"2024-01-01-0{hour}:00")["rows_inserted"] == 6

    def test_hours_can_not_be_stored_in_a_date_column(self, database_url, conn):
        conn.execute("create schema t; create table t.events (at date primary key)")
        asset = dg.asset(
            key_prefix="t", name="events", metadata={"partition_expr": "at"},
            partitions_def=dg.HourlyPartitionsDefinition("2024-01-01-00:00"),
        )(lambda: Query("select current_date as at"))  # fmt: skip
        result = materialize(database_url, asset, partition_key="2024-01-01-02:00", expect=False)
        assert "shorter than a day" in failure_description(result)

    def test_each_dimension_of_a_partition_is_a_column(self, database_url, conn):
        conn.execute(
            "create schema t; create table t.multi (day date, region text, n int, primary key (day, region, n))"
        )
        conn.execute(
            "insert into t.multi values ('2024-01-02', 'eu', 9), ('2024-01-02', 'us', 9), ('2024-01-03', 'eu', 9)"
        )
        definition = dg.MultiPartitionsDefinition(
            {
                "when": dg.DailyPartitionsDefinition("2024-01-01", fmt="%Y-%m-%d"),
                "where": dg.StaticPartitionsDefinition(["eu", "us"]),
            }
        )
        asset = dg.asset(
            key_prefix="t", name="multi", partitions_def=definition,
            metadata={"partition_expr": {"when": "day", "where": "region"}},
        )(lambda: Query(
            "select w.d::date as day, w.r as region, 1 as n"
            " from unnest(%(when_keys)s::text[], %(where_keys)s::text[]) w (d, r)"
        ))  # fmt: skip
        key = dg.MultiPartitionKey({"when": "2024-01-02", "where": "eu"})
        result = materialize(database_url, asset, partition_key=key)
        assert [(str(d), r, n) for d, r, n in rows(conn, "t.multi", "1, 2, 3")] == [
            ("2024-01-02", "eu", 1), ("2024-01-02", "us", 9), ("2024-01-03", "eu", 9),
        ]  # fmt: skip
        assert metadata(result, "t/multi", key)["rows_deleted"] == 1

    def test_a_self_dependent_asset_reads_its_previous_day(self, database_url, conn):
        conn.execute("create schema t; create table t.sums (day date primary key, total int not null)")

        @dg.asset(
            key_prefix="t", name="sums", metadata={"partition_expr": "day"},
            partitions_def=dg.DailyPartitionsDefinition("2024-01-01"),
            ins={"before": dg.AssetIn(
                key=["t", "sums"],
                partition_mapping=dg.TimeWindowPartitionMapping(
                    start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True
                ),
            )},
        )  # fmt: skip
        def sums(context: dg.AssetExecutionContext, before: pd.DataFrame) -> pd.DataFrame:
            total = int(before["total"].sum()) + 1
            return pd.DataFrame({"day": [context.partition_key], "total": [total]})

        for day in ("2024-01-01", "2024-01-02", "2024-01-03"):
            materialize(database_url, sums, partition_key=day)
        assert [total for _, total in rows(conn, "t.sums")] == [1, 2, 3]

    def test_keys_are_cast_to_the_columns_own_type(self, database_url, conn):
        conn.execute("create schema t; create table t.orgs (org uuid primary key, n int)")
        upper = "AAAAAAAA-0000-0000-0000-00000000000B"
        asset = dg.asset(
            key_prefix="t", name="orgs", metadata={"partition_expr": "org"},
            partitions_def=dg.StaticPartitionsDefinition([upper, "not a uuid"]),
            backfill_policy=dg.BackfillPolicy.single_run(),
        )(lambda: Query("select k::uuid as org, 1 as n from unnest(%(partition_keys)s::text[]) k"))  # fmt: skip
        result = materialize(database_url, asset, keys=(upper, "not a uuid"), expect=False)
        assert materialized(result, "t/orgs") == {upper: 1}
        assert "'not a uuid': invalid input syntax for type uuid" in failure_description(result)
        assert metadata(result, "t/orgs", upper)["rows_inserted"] == 1


class TestEmpty:
    def test_an_empty_frame_empties_its_slice(self, database_url, conn, table):
        conn.execute("insert into t.items values ('a', 1, 'old'), ('b', 1, 'kept')")
        asset = items(lambda: frame(), partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
        result = materialize(database_url, asset, partition_key="a")
        assert rows(conn, table) == [("b", 1, "kept")]
        assert metadata(result, "t/items", "a")["dagster/partition_row_count"] == 0

    @pytest.mark.parametrize("mode", ["upsert", "replace"])
    def test_a_query_without_rows_empties_its_slice(self, database_url, conn, table, mode):
        conn.execute("insert into t.items values ('a', 1, 'old'), ('b', 1, 'kept')")
        asset = items(
            lambda: Query("select * from t.items where false"),
            partitions_def=dg.StaticPartitionsDefinition(["a", "b"]),
            metadata={"partition_expr": "part", "write_mode": mode},
        )
        materialize(database_url, asset, partition_key="a")
        assert rows(conn, table) == [("b", 1, "kept")]

    def test_a_frame_without_columns_is_refused(self, database_url, conn, table):
        conn.execute("insert into t.items values ('a', 1, 'old')")
        result = materialize(database_url, items(lambda: pd.DataFrame(), metadata={}), expect=False)
        assert "no columns" in failure_description(result)
        assert len(rows(conn, table)) == 1

    def test_returning_none_means_that_the_asset_wrote_its_rows_itself(self, database_url, conn, table):
        conn.execute("insert into t.items values ('a', 1, 'own')")
        result = materialize(database_url, items(lambda: None, metadata={}))
        assert rows(conn, table) == [("a", 1, "own")]
        assert materialized(result, "t/items") == {None: 1}


class TestWriters:
    def test_two_runs_write_two_partitions_concurrently(self, database_url, conn, table):
        """The second run writes its slice while the first one's transaction is still open."""
        finished = []

        def slow(connection, keys, units):
            inner = materialize(database_url, other, partition_key="b")
            finished.append(inner.success)
            return frame(("a", 1, "first"))

        definition = dg.StaticPartitionsDefinition(["a", "b"])
        other = items(lambda: frame(("b", 1, "second")), partitions_def=definition)
        materialize(database_url, items(lambda: Compute(slow), partitions_def=definition), partition_key="a")
        assert finished == [True]
        assert rows(conn, table) == [("a", 1, "first"), ("b", 1, "second")]


class TestMetadata:
    def test_the_table_is_described_as_dagster_expects_it(self, database_url, conn, table):
        conn.execute("comment on column t.items.v is 'what it is worth'")
        result = materialize(database_url, items(lambda: frame(("a", 1, "x")), metadata={}))
        found = metadata(result, "t/items")
        assert found["dagster/table_name"].endswith(".t.items")
        columns = {c.name: c for c in found["dagster/column_schema"].columns}
        assert list(columns) == ["part", "id", "v"]
        assert columns["v"].description == "what it is worth" and columns["v"].constraints.nullable
        assert columns["id"].type == "integer" and not columns["id"].constraints.nullable

    def test_a_write_set_writes_several_tables_in_one_run(self, database_url, conn, table):
        conn.execute("create table t.totals (part text primary key, n int)")

        @dg.multi_asset(
            outs={
                name: dg.AssetOut(key=["t", name], metadata={"partition_expr": "part"}, is_required=False)
                for name in ("items", "totals")
            },
            partitions_def=dg.StaticPartitionsDefinition(["a", "b"]),
            backfill_policy=dg.BackfillPolicy.single_run(),
        )
        def both():
            item = Query("select k as part, 1 as id, 'x' as v from unnest(%(partition_keys)s::text[]) k")
            total = Query(
                "select part, count(*) as n from t.items where part = any(%(partition_keys)s) group by 1"
            )
            yield dg.Output(
                WriteSet([Write(Target("t/items", "part"), item), Write(Target("t/totals", "part"), total)]),
                "items",
            )
            yield dg.Output(None, "totals")

        result = materialize(database_url, both, keys=("a", "b"))
        assert rows(conn, "t.totals") == [("a", 1), ("b", 1)]
        for asset in ("t/items", "t/totals"):
            assert materialized(result, asset) == {"a": 1, "b": 1}
            assert metadata(result, asset, "b")["rows_inserted"] == 1


def test_an_arrow_table_is_stored_like_a_frame(database_url, conn, table):
    data = pa.table({"part": ["a"], "id": pa.array([1], pa.int8()), "v": pa.array(["x"]).dictionary_encode()})
    materialize(database_url, items(lambda: data, metadata={}))
    assert rows(conn, table) == [("a", 1, "x")]


@pytest.mark.parametrize(
    ("configured", "asked", "target"), [(1.0, 5.0, 5.0), (8.0, 5.0, 8.0), (1.0, 0.0, 1.0), (0.0, 5.0, 0.0)]
)
def test_a_write_set_can_request_longer_batches_and_a_fixed_size_stays(configured, asked, target):
    manager = PostgresIOManager(
        postgres=PostgresResource(url="postgresql:///none"), target_seconds=configured
    )
    assert manager.settings(WriteSet([], batch_seconds=asked)).target_seconds == target
