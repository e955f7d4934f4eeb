"""Every kind of partitions: several outputs of a step, no requested partition, and columns that distinguish keys."""

import dagster as dg
import pandas as pd
import pytest
from dagster._core.definitions.partitions.mapping.partition_mapping import UpstreamPartitionsResult

from dagster_backfills.engine.model import Query
from dagster_backfills_tests.dagster.storing import (
    failure_description,
    materialize,
    materialized,
    metadata,
    rows,
)

HOURS = dg.HourlyPartitionsDefinition("2024-01-01-00:00", end_date="2024-01-03-00:00")
DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-02-01")
PLACES = dg.StaticPartitionsDefinition(["eu", "us"])
DYNAMIC = dg.DynamicPartitionsDefinition(name="kinds")


class TestTwoOutputs:
    """Two outputs of one step, each with its own rows."""

    @pytest.fixture
    def tables(self, conn):
        conn.execute("create schema t")
        conn.execute("create table t.first (part text, id int, primary key (part, id))")
        conn.execute("create table t.second (part text, id int, primary key (part, id))")

    def two(self, first, second, **options):
        by = {"metadata": {"partition_expr": "part"}} if "partitions_def" in options else {}
        outs = {name: dg.AssetOut(key=["t", name], **by) for name in ("first", "second")}

        @dg.multi_asset(outs=outs, **options)
        def both():
            yield dg.Output(first, "first")
            yield dg.Output(second, "second")

        return both

    @pytest.mark.parametrize("kind", ["frame", "query"])
    def test_both_are_written_without_partitions(self, database_url, conn, tables, kind):
        def made(n):
            if kind == "query":
                return Query(f"select 'a' as part, {n} as id")
            return pd.DataFrame({"part": ["a"], "id": [n]})

        result = materialize(database_url, self.two(made(1), made(2)))
        assert (rows(conn, "t.first"), rows(conn, "t.second")) == ([("a", 1)], [("a", 2)])
        assert metadata(result, "t/second")["dagster/row_count"] == 1
        assert conn.execute("select assets from backfill.runs").fetchall() == [(["t/first", "t/second"],)]

    def test_both_are_written_in_every_partition_of_a_range(self, database_url, conn, tables):
        source = "select k as part, {} as id from unnest(%(partition_keys)s::text[]) as k"
        both = self.two(
            Query(source.format(1)),
            Query(source.format(2)),
            partitions_def=PLACES,
            backfill_policy=dg.BackfillPolicy.single_run(),
        )
        result = materialize(database_url, both, keys=("eu", "us"))
        assert rows(conn, "t.first") == [("eu", 1), ("us", 1)]
        assert rows(conn, "t.second") == [("eu", 2), ("us", 2)]
        for asset in ("t/first", "t/second"):
            assert materialized(result, asset) == {"eu": 1, "us": 1}
            assert metadata(result, asset, "us")["rows_inserted"] == 1

    def test_a_retry_continues_with_the_output_that_was_not_written(self, database_url, conn, tables):
        conn.execute("alter table t.second add constraint nothing_yet check (id < 0)")
        both = self.two(pd.DataFrame({"part": ["a"], "id": [1]}), pd.DataFrame({"part": ["a"], "id": [2]}))
        with dg.DagsterInstance.ephemeral() as instance:
            failed = materialize(database_url, both, instance=instance, expect=False)
            assert not failed.success and rows(conn, "t.second") == []
            conn.execute("alter table t.second drop constraint nothing_yet")
            tags = {"dagster/is_resume_retry": "true", "dagster/root_run_id": failed.run_id}
            materialize(database_url, both, instance=instance, tags=tags)
        assert (rows(conn, "t.first"), rows(conn, "t.second")) == ([("a", 1)], [("a", 2)])


class Nothing(dg.PartitionMapping):
    """A partition mapping that requests no upstream partition."""

    def get_upstream_mapped_partitions_result_for_partitions(
        self,
        downstream_partitions_subset,
        downstream_partitions_def,
        upstream_partitions_def,
        *args,
        **kwargs,
    ):
        return UpstreamPartitionsResult(
            partitions_subset=upstream_partitions_def.empty_subset(),
            required_but_nonexistent_subset=upstream_partitions_def.empty_subset(),
        )

    def get_downstream_partitions_for_partitions(
        self, upstream_partitions_subset, upstream_partitions_def, downstream_partitions_def, *args, **kwargs
    ):
        return downstream_partitions_def.empty_subset()

    def validate_partition_mapping(self, upstream_partitions_def, downstream_partitions_def):
        pass

    @property
    def description(self):
        return "nothing"


class TestNoneAskedFor:
    @pytest.mark.parametrize(
        ("definition", "column", "expr"),
        [
            (PLACES, "part text", "part"),
            (DYNAMIC, "part text", "part"),
            (DAYS, "part date", "part"),
            (DAYS, "part text", "part"),
            (HOURS, "part timestamptz", "part"),
            (dg.MultiPartitionsDefinition({"a": DAYS, "b": PLACES}), "d date, part text", {"a": "d", "b": "part"}),
            (dg.MultiPartitionsDefinition({"a": HOURS, "b": PLACES}), "d text, part text", {"a": "d", "b": "part"}),
        ],
        ids=["static", "dynamic", "daily", "daily in text", "hourly", "multi", "hourly multi"],
    )  # fmt: skip
    def test_an_input_without_partitions_is_empty(self, database_url, conn, definition, column, expr):
        conn.execute(f"create schema t; create table t.kinds ({column}, n int)")
        conn.execute("insert into t.kinds (n) values (1), (2)")
        # Also rows of partitions, not only rows outside of all partitions.
        value = "'2024-01-01'" if "date" in column or "timestamptz" in column else "'eu'"
        conn.execute(f"update t.kinds set {column.split()[0]} = {value}")  # noqa: S608
        got = []

        kinds = dg.AssetSpec(
            ["t", "kinds"], partitions_def=definition, metadata={"partition_expr": expr}
        ).with_io_manager_key("io_manager")

        @dg.asset(
            partitions_def=definition,
            ins={"before": dg.AssetIn(key=["t", "kinds"], partition_mapping=Nothing())},
        )
        def reader(before: pd.DataFrame) -> None:
            got.append(before)

        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions("kinds", ["eu"])
            [key, *_] = definition.get_partition_keys(dynamic_partitions_store=instance)
            materialize(database_url, reader, kinds, selection=[reader], partition_key=key, instance=instance)
        assert [len(frame) for frame in got] == [0]
        assert list(got[0].columns)[-1] == "n"

    @pytest.mark.parametrize("multi", [False, True])
    def test_the_first_day_of_a_self_dependent_asset_has_no_previous_day(self, database_url, conn, multi):
        conn.execute("create schema t; create table t.sums (day date, place text, primary key (day, place))")
        conn.execute("insert into t.sums values ('2024-01-01', 'eu'), ('2024-01-09', 'eu')")
        before = dg.TimeWindowPartitionMapping(
            start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True
        )
        mapping, definition, expr, key = before, DAYS, "day", "2024-01-01"
        if multi:
            mapping = dg.MultiPartitionMapping({"day": dg.DimensionPartitionMapping("day", before)})
            definition = dg.MultiPartitionsDefinition({"day": DAYS, "place": PLACES})
            expr = {"day": "day", "place": "place"}
            key = dg.MultiPartitionKey({"day": "2024-01-01", "place": "eu"})
        got = []

        @dg.asset(
            key_prefix="t", name="sums", partitions_def=definition, metadata={"partition_expr": expr},
            ins={"before": dg.AssetIn(key=["t", "sums"], partition_mapping=mapping)},
        )  # fmt: skip
        def sums(before: pd.DataFrame) -> None:
            got.append(len(before))

        materialize(database_url, sums, partition_key=key)
        assert got == [0]


def written_and_read(database_url, conn, definition, expr, select, keys, expected):
    """Writes each key in a separate run, then loads them one by one."""
    got = []

    @dg.asset(key_prefix="t", name="kinds", partitions_def=definition, metadata={"partition_expr": expr})
    def kinds() -> Query:
        return Query(select)

    @dg.asset(partitions_def=definition, ins={"kinds": dg.AssetIn(key=["t", "kinds"])})
    def reader(kinds: pd.DataFrame) -> None:
        got.append(kinds.values.tolist())

    for key in keys:
        materialize(database_url, kinds, partition_key=key)
    for key in keys:
        materialize(database_url, reader, kinds, selection=[reader], partition_key=key)
    assert got == expected


class TestColumnsThatTellKeysApart:
    def test_hours_in_a_text_column_are_written_and_loaded_by_their_keys(self, database_url, conn):
        conn.execute("create schema t; create table t.kinds (part text primary key)")
        keys = ["2024-01-01-05:00", "2024-01-01-06:00"]
        written_and_read(
            database_url, conn, HOURS, "part",
            "select k as part from unnest(%(partition_keys)s::text[]) as k", keys, [[[key]] for key in keys],
        )  # fmt: skip

    def test_hours_and_places_in_text_columns(self, database_url, conn):
        conn.execute("create schema t; create table t.kinds (h text, place text, primary key (h, place))")
        keys = [
            dg.MultiPartitionKey({"hour": f"2024-01-01-0{n}:00", "place": place})
            for n in (5, 6)
            for place in ("eu", "us")
        ]
        written_and_read(
            database_url, conn,
            dg.MultiPartitionsDefinition({"hour": HOURS, "place": PLACES}), {"hour": "h", "place": "place"},
            "select h, p as place from unnest(%(hour_keys)s::text[], %(place_keys)s::text[]) as w (h, p)", keys,
            [[[key.keys_by_dimension["hour"], key.keys_by_dimension["place"]]] for key in keys],
        )  # fmt: skip
        assert len(rows(conn, "t.kinds")) == 4

    def test_days_in_another_format_and_places_in_a_date_and_a_text_column(self, database_url, conn):
        conn.execute("create schema t; create table t.kinds (d date, place text, primary key (d, place))")
        days = dg.DailyPartitionsDefinition("01.02.2024", fmt="%d.%m.%Y")
        key = dg.MultiPartitionKey({"day": "03.02.2024", "place": "eu"})
        written_and_read(
            database_url, conn,
            dg.MultiPartitionsDefinition({"day": days, "place": PLACES}), {"day": "d", "place": "place"},
            "select d::date as d, p as place from unnest(%(day_keys)s::text[], %(place_keys)s::text[]) as w (d, p)",
            [key], [[[pd.Timestamp("2024-02-03").date(), "eu"]]],
        )  # fmt: skip

    @pytest.mark.parametrize("hour", ["05:00", "23:00"])
    @pytest.mark.parametrize("multi", [False, True])
    def test_an_hour_in_a_date_column_is_refused_before_anything_is_written(
        self, database_url, conn, hour, multi
    ):
        conn.execute("create schema t; create table t.kinds (d date, place text, primary key (d, place))")
        conn.execute("insert into t.kinds values ('2024-01-01', 'eu')")
        definition = dg.MultiPartitionsDefinition({"hour": HOURS, "place": PLACES}) if multi else HOURS
        key: str = f"2024-01-01-{hour}"
        if multi:
            key = dg.MultiPartitionKey({"hour": key, "place": "eu"})

        @dg.asset(
            key_prefix="t", name="kinds", partitions_def=definition,
            metadata={"partition_expr": {"hour": "d", "place": "place"} if multi else "d"},
        )  # fmt: skip
        def kinds() -> Query:
            return Query("select date '2024-01-01' as d, 'us' as place")

        result = materialize(database_url, kinds, partition_key=key, expect=False)
        assert "shorter than a day" in failure_description(result) and "text column" in failure_description(
            result
        )
        assert [place for _, place in rows(conn, "t.kinds")] == ["eu"]

    @pytest.mark.parametrize(
        ("type_", "twins"),
        [
            ("int", ["1", "01"]),
            ("numeric", ["1.0", "1"]),
            ("uuid", ["A" * 32, "a" * 32]),
            ("char(3)", ["a", "a "]),
        ],
    )
    def test_keys_with_the_same_column_value_are_refused(self, database_url, conn, type_, twins):
        conn.execute(f"create schema t; create table t.kinds (part {type_} primary key)")
        definition = dg.StaticPartitionsDefinition(["no such value", *twins] if type_ == "int" else twins)

        @dg.asset(
            key_prefix="t", name="kinds", partitions_def=definition, metadata={"partition_expr": "part"}
        )
        def kinds() -> Query:
            return Query(f"select k::{type_} as part from unnest(%(partition_keys)s::text[]) as k")  # noqa: S608

        result = materialize(database_url, kinds, partition_key=twins[0], expect=False)
        assert "have the same value in column 'part'" in failure_description(result) and repr(
            twins[1]
        ) in failure_description(result)
        assert rows(conn, "t.kinds") == []


def test_partitions_can_not_be_loaded_from_a_table_without_a_partition_column(database_url, conn):
    conn.execute("create schema t; create table t.items (id int primary key)")
    upstream = dg.AssetSpec(
        ["t", "items"], partitions_def=PLACES, metadata={"partition_in_query": True}
    ).with_io_manager_key("io_manager")

    @dg.asset(ins={"given": dg.AssetIn(key=upstream.key)}, partitions_def=PLACES)
    def reader(given: pd.DataFrame) -> None: ...

    key = PLACES.get_partition_keys()[0]
    result = materialize(database_url, reader, upstream, selection=[reader], partition_key=key, expect=False)
    assert "t.items has no partition column" in failure_description(result)
