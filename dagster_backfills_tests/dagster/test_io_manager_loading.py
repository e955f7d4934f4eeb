"""Loading by partition and column."""

import uuid
from datetime import date
from decimal import Decimal

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from sqlalchemy import Select, func, select

from dagster_backfills_tests.dagster.storing import failure_description, materialize


class TestLoading:
    @pytest.fixture
    def days(self, database_url, conn):
        """A table of ten days with two rows each, and its asset."""
        conn.execute(
            "create schema t; create table t.days (day date, n int, note text, amount numeric, primary key (day, n))"
        )
        conn.execute(
            "insert into t.days select date '2024-01-01' + d, n, 'note', 1.10"
            " from generate_series(0, 9) d, generate_series(1, 2) n"
        )
        return dg.AssetSpec(
            key=["t", "days"],
            metadata={"partition_expr": "day"},
            partitions_def=dg.DailyPartitionsDefinition("2024-01-01"),
        ).with_io_manager_key("io_manager")

    def read(self, database_url, upstream, type_, keys=None, columns=None, partition=None, **ins):
        got = []
        options = {"partitions_def": upstream.partitions_def} if partition or keys else {}
        metadata_ = {"columns": columns} if columns else None

        @dg.asset(
            ins={"given": dg.AssetIn(key=upstream.key, metadata=metadata_, **ins)},
            backfill_policy=dg.BackfillPolicy.single_run(), **options,
        )  # fmt: skip
        def reader(given: type_) -> None:  # type: ignore[valid-type]
            got.append(given)

        run_for = {"partition_key": partition} if partition else {}
        materialize(database_url, reader, upstream, keys=keys, selection=[reader], **run_for)
        return got[0]

    def test_a_frame_of_one_partition(self, database_url, days):
        frame = self.read(database_url, days, pd.DataFrame, partition="2024-01-03")
        assert [str(d) for d in frame["day"]] == ["2024-01-03", "2024-01-03"]
        assert list(frame.columns) == ["day", "n", "note", "amount"]

    def test_a_range_of_partitions(self, database_url, days):
        frame = self.read(database_url, days, pd.DataFrame, keys=("2024-01-03", "2024-01-05"))
        assert sorted({str(d) for d in frame["day"]}) == ["2024-01-03", "2024-01-04", "2024-01-05"]

    def test_all_partitions_for_an_asset_without_any(self, database_url, days):
        assert len(self.read(database_url, days, pd.DataFrame)) == 20

    def test_only_the_requested_columns_are_loaded(self, database_url, days):
        frame = self.read(database_url, days, pd.DataFrame, partition="2024-01-03", columns=["n", "amount"])
        assert list(frame.columns) == ["n", "amount"]

    def test_an_arrow_table(self, database_url, days):
        table = self.read(database_url, days, pa.Table, partition="2024-01-03", columns=["n"])
        assert sorted(table.column("n").to_pylist()) == [1, 2]

    def test_a_select_that_the_asset_extends(self, database_url, conn, days):
        from sqlalchemy import create_engine

        chosen = self.read(database_url, days, Select, partition="2024-01-03")
        engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.connect() as connection:
            assert connection.execute(select(func.count()).select_from(chosen.subquery())).scalar() == 2
        engine.dispose()

    def test_an_unknown_column_is_named(self, database_url, days):
        @dg.asset(ins={"given": dg.AssetIn(key=days.key, metadata={"columns": ["nope"]})})
        def reader(given: pd.DataFrame) -> None: ...

        result = materialize(database_url, reader, days, selection=[reader], expect=False)
        assert "t.days has no column 'nope'" in failure_description(result)

    def test_an_unsupported_input_type_is_named(self, database_url, days):
        @dg.asset(ins={"given": dg.AssetIn(key=days.key)})
        def reader(given: dict) -> None: ...

        result = materialize(database_url, reader, days, selection=[reader], expect=False)
        assert "can't be loaded as dict" in failure_description(result)

    def test_scattered_partitions_of_several_dimensions(self, database_url, conn):
        conn.execute(
            "create schema t; create table t.multi (day date, region text, n int, primary key (day, region, n))"
        )
        conn.execute(
            "insert into t.multi select date '2024-01-01' + d, r, 1"
            " from generate_series(0, 3) d, unnest('{eu,us}'::text[]) r"
        )
        definition = dg.MultiPartitionsDefinition(
            {
                "when": dg.DailyPartitionsDefinition("2024-01-01"),
                "where": dg.StaticPartitionsDefinition(["eu", "us"]),
            }
        )
        upstream = dg.AssetSpec(
            ["t", "multi"],
            partitions_def=definition,
            metadata={"partition_expr": {"when": "day", "where": "region"}},
        ).with_io_manager_key("io_manager")
        key = dg.MultiPartitionKey({"when": "2024-01-02", "where": "us"})
        frame = self.read(database_url, upstream, pd.DataFrame, partition=key)
        assert frame.values.tolist() == [[date(2024, 1, 2), "us", 1]]

    def test_hours_of_a_point_in_time(self, database_url, conn):
        conn.execute("create schema t; create table t.events (at timestamptz primary key)")
        conn.execute(
            "insert into t.events select generate_series('2024-01-01 00:00+00'::timestamptz, '2024-01-01 05:59+00',"
            " '20 minutes')"
        )
        upstream = dg.AssetSpec(
            ["t", "events"],
            partitions_def=dg.HourlyPartitionsDefinition("2024-01-01-00:00"),
            metadata={"partition_expr": "at"},
        ).with_io_manager_key("io_manager")
        frame = self.read(database_url, upstream, pd.DataFrame, keys=("2024-01-01-02:00", "2024-01-01-03:00"))
        assert [(t.hour, t.minute) for t in frame["at"]] == [
            (2, 0),
            (2, 20),
            (2, 40),
            (3, 0),
            (3, 20),
            (3, 40),
        ]

    def test_thousands_of_partitions_at_once(self, database_url, conn):
        conn.execute("create schema t; create table t.items (part text primary key, v int)")
        conn.execute("insert into t.items select 'k' || n, n from generate_series(1, 70000) n")
        keys = [f"k{n}" for n in range(1, 70001)]
        upstream = dg.AssetSpec(
            ["t", "items"],
            partitions_def=dg.StaticPartitionsDefinition(keys),
            metadata={"partition_expr": "part"},
        ).with_io_manager_key("io_manager")
        got = []

        @dg.asset(ins={"given": dg.AssetIn(key=["t", "items"], partition_mapping=dg.AllPartitionMapping())})
        def reader(given: pd.DataFrame) -> None:
            got.append(given)

        materialize(database_url, reader, upstream, selection=[reader])
        assert len(got[0]) == 70000

    def test_values_come_back_as_they_went_in(self, database_url, conn):
        conn.execute(
            "create schema t; create type t.mood as enum ('happy');"
            "create table t.items (id int primary key, a int[], j jsonb, b bytea, n numeric, big bigint, m t.mood,"
            " u uuid, flag boolean, at timestamptz, day date)"
        )
        conn.execute(
            "insert into t.items values (1, '{1,null}', '{\"a\": [1]}', '\\x00ff', 12345678901234567890.123,"
            " 9007199254740993, 'happy', '00000000-0000-0000-0000-000000000005', true, '2024-01-01 12:00+00',"
            " '2024-01-01'), (2, null, null, null, null, null, null, null, null, null, null)"
        )
        upstream = dg.AssetSpec(["t", "items"]).with_io_manager_key("io_manager")
        frame = self.read(database_url, upstream, pd.DataFrame).sort_values("id")
        first, second = frame.to_dict("records")
        assert first["a"] == [1, None] and first["j"] == {"a": [1]} and bytes(first["b"]) == b"\x00\xff"
        assert first["n"] == Decimal("12345678901234567890.123") and first["big"] == 9007199254740993
        assert first["m"] == "happy" and first["flag"] is True and first["day"] == date(2024, 1, 1)
        assert first["u"] == uuid.UUID(int=5) and first["at"] == pd.Timestamp("2024-01-01 12:00", tz="UTC")
        assert all(pd.isna(v) for name, v in second.items() if name != "id")
