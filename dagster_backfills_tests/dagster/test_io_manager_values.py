"""Values of every type are stored and loaded unchanged, and odd names work everywhere."""

import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
from psycopg import sql

from dagster_backfills.engine.model import Query
from dagster_backfills_tests.dagster.storing import materialize, materialized, metadata, rows, versions

ODD_NAMES = ["Two Words", 'say "hi"', "it's", "100%", "%(x)s", "{}", "Größe", "数", "select", "a.b"]
ODD_KEYS = [
    "a,b", "it's", '"quoted"', "100%", "%s", "a/b", "back\\slash", " two  spaces ", "Łódź 東京 🚲", "{}", "NULL",
    "k" * 500,
]  # fmt: skip


def sql_path(name):
    """The `table` entry of a table that has the same name as its schema."""
    return [name, name]


# The type of a column, its values as they are given, and as they are stored if that is something else.
PYTHON_VALUES = [
    ("int[]", [[1, 2, None], [], None], [[1, 2, None], [], None]),
    ("text[]", [["a", 'say "x"', "b\\c", "", "NULL", "{}", "a,b"]], None),
    ("int[][]", [[[1, 2], [3, 4]]], None),
    ("int[]", [np.array([1, 2]), None], [[1, 2], None]),
    ("jsonb", [{"a": 1}, {"b": [1, None, "x"]}, [1, 2], None], None),
    ("jsonb", ['{"a": 1}', None], [{"a": 1}, None]),
    ("json", [{"a": {"b": "ü"}}, {}], None),
    ("bytea", [b"\x00\xff\\x", b"", None], None),
    ("numeric", [Decimal("12345678901234567890.123456789"), Decimal("-0.1"), None], None),
    ("numeric(10,2)", [Decimal("1.005"), None], [Decimal("1.01"), None]),
    ("interval", [timedelta(days=400, seconds=5, microseconds=7), timedelta(seconds=-1), None], None),
    ("timestamptz", [datetime(2024, 2, 29, 12, tzinfo=UTC), None], None),
    ("timestamp", [datetime(2024, 2, 29, 12, 30, 1, 5), None], None),
    ("date", [date(2024, 2, 29), None], None),
    ("time", [time(23, 59, 58), None], None),
    ("t.mood", ["happy", "so so", None], None),
    ("uuid", [uuid.UUID(int=5), None], None),
    ("boolean", [True, False, None], None),
    ("text", ["", "x", None, "line\nbreak", '"', "a,b", "\\N", "ü"], None),
    ("double precision", [1.5, float("nan"), None], [1.5, None, None]),
    ("bigint", [2**62, -1], None),
]
PANDAS_VALUES = [
    ("int", pd.Series([1, None, 3], dtype="Int64"), [1, None, 3]),
    ("boolean", pd.Series([True, None], dtype="boolean"), [True, None]),
    ("text", pd.Series(["a", None, "a"], dtype="category"), ["a", None, "a"]),
    ("int", pd.Series([5, 5], dtype="category"), [5, 5]),
    ("text", pd.Series(["a", None], dtype="string"), ["a", None]),
    ("double precision", pd.Series([0.1, np.nan, np.inf, -0.0]), [0.1, None, float("inf"), 0.0]),
    ("int", pd.Series([1.0, np.nan]), [1, None]),
    ("timestamptz", pd.Series(pd.to_datetime(["2024-01-01T12:00+02:00", None], utc=True)),
     [datetime(2024, 1, 1, 10, tzinfo=UTC), None]),
    ("timestamptz", pd.Series(pd.to_datetime(["2024-07-01"])).dt.tz_localize("America/New_York"),
     [datetime(2024, 7, 1, 4, tzinfo=UTC)]),
    ("date", pd.Series(pd.to_datetime(["2024-01-01", None])), [date(2024, 1, 1), None]),
    ("interval", pd.Series(pd.to_timedelta(["1 days 00:00:01.5", None])),
     [timedelta(days=1, seconds=1.5), None]),
    ("text", pd.Series([None, None], dtype=object), [None, None]),
    ("smallint", pd.Series([1, 2], dtype="uint8"), [1, 2]),
]  # fmt: skip


def tables_of(conn, types):
    """A table `t.items_N` for each type, with a column `v` of it. Returns their names."""
    conn.execute("create schema t; create type t.mood as enum ('happy', 'so so')")
    conn.execute("set timezone = 'UTC'")
    for number, type_ in enumerate(types):
        conn.execute(f"create table t.items_{number} (id int primary key, v {type_})")
    return [f"t.items_{number}" for number in range(len(types))]


def asset_of(table, frame):
    return dg.asset(key=table.split("."))(lambda: frame)


class TestTypes:
    def test_columns_of_python_values_are_stored_unchanged(self, database_url, conn):
        tables = tables_of(conn, [type_ for type_, *_ in PYTHON_VALUES])
        assets = []
        for table, (_, values, _) in zip(tables, PYTHON_VALUES, strict=True):
            frame = pd.DataFrame({"id": range(len(values))})
            frame["v"] = pd.Series(values, dtype=object)
            assets.append(asset_of(table, frame))
        materialize(database_url, *assets)
        for table, (type_, values, expected) in zip(tables, PYTHON_VALUES, strict=True):
            stored = [v for _, v in rows(conn, table)]
            assert stored == (values if expected is None else expected), type_
        before = [versions(conn, table) for table in tables]
        materialize(database_url, *assets)
        assert [versions(conn, table) for table in tables] == before

    def test_columns_of_pandas_types_are_stored_unchanged(self, database_url, conn):
        tables = tables_of(conn, [type_ for type_, *_ in PANDAS_VALUES])
        assets = []
        for table, (_, series, _) in zip(tables, PANDAS_VALUES, strict=True):
            index = [f"i{n}" for n in range(len(series))]
            frame = pd.DataFrame({"id": range(len(series)), "v": series.array}, index=index)
            assets.append(asset_of(table, frame))
        materialize(database_url, *assets)
        for table, (type_, series, expected) in zip(tables, PANDAS_VALUES, strict=True):
            assert [v for _, v in rows(conn, table)] == expected, (type_, series.dtype)

    def test_arrow_types_are_stored_unchanged(self, database_url, conn):
        conn.execute(
            "create schema t; create table t.items (id int primary key, a int[], j jsonb, b bytea, n numeric)"
        )
        table = pa.table(
            {
                "id": pa.array([1, 2]),
                "a": pa.array([[1, 2], None]),
                "j": pa.array([{"x": 1, "y": "z"}, None]),
                "b": pa.array([b"\x00", None], pa.large_binary()),
                "n": pa.array([Decimal("1.10"), None]),
            }
        )
        materialize(database_url, dg.asset(key_prefix="t", name="items")(lambda: table))
        assert rows(conn, "t.items") == [
            (1, [1, 2], {"x": 1, "y": "z"}, b"\x00", Decimal("1.10")), (2, None, None, None, None),
        ]  # fmt: skip

    def test_changes_in_a_domain_over_json_and_in_letter_case_are_detected(self, database_url, conn):
        conn.execute(
            "create schema t; create domain t.doc as json; create table t.items (id int primary key, v t.doc)"
        )
        docs = [{"a": 1}, {"a": 2}]
        asset = dg.asset(key_prefix="t", name="items")(
            lambda: pd.DataFrame({"id": [1], "v": [docs.pop(0)]}, dtype=object)
        )
        materialize(database_url, asset)
        result = materialize(database_url, asset)
        assert metadata(result, "t/items")["rows_updated"] == 1


def odd_asset(conn, number, name, definition):
    """An asset with a schema, a table, columns and a type of this name. Its second run deletes a row."""
    identifier = sql.Identifier(name)
    conn.execute(sql.SQL("create schema {n}").format(n=identifier))
    conn.execute(
        sql.SQL("create type {n}.{m} as enum ('a', 'b')").format(n=identifier, m=sql.Identifier(f"{name}!"))
    )
    conn.execute(
        sql.SQL("create table {n}.{n} ({n} text, {k} int, {v} {n}.{t}, primary key ({n}, {k}))").format(
            n=identifier,
            k=sql.Identifier(f"{name} k"),
            v=sql.Identifier(f"{name} v"),
            t=sql.Identifier(f"{name}!"),
        )
    )
    held = [["a", "b"], ["b"]]

    def frame():
        values = held.pop(0)
        return pd.DataFrame({name: "p", f"{name} k": range(len(values)), f"{name} v": values})

    return dg.asset(
        key=["x", str(number)], partitions_def=definition,
        metadata={"partition_expr": name, "table": sql_path(name), "unit_column": f"{name} k"},
    )(frame)  # fmt: skip


def odd_reader(number, name, definition):
    @dg.asset(
        name=f"reader_{number}", partitions_def=definition, ins={"given": dg.AssetIn(key=["x", str(number)])}
    )
    def reader(given: pd.DataFrame) -> None:
        assert given[f"{name} v"].tolist() == ["b"]

    return reader


class TestOddNames:
    def test_schemas_tables_columns_and_types_may_have_any_name(self, database_url, conn):
        definition = dg.StaticPartitionsDefinition(["p", "q"])
        assets = [odd_asset(conn, number, name, definition) for number, name in enumerate(ODD_NAMES)]
        for _ in range(2):
            result = materialize(database_url, *assets, partition_key="p")
        for number, name in enumerate(ODD_NAMES):
            assert metadata(result, f"x/{number}", "p")["rows_deleted"] == 1, name
            found = conn.execute(sql.SQL("select * from {n}.{n}").format(n=sql.Identifier(name))).fetchall()
            assert found == [("p", 0, "b")], name
        readers = [odd_reader(number, name, definition) for number, name in enumerate(ODD_NAMES)]
        sources = [asset.to_source_assets()[0] for asset in assets]
        materialize(database_url, *readers, *sources, partition_key="p")

    def test_partition_keys_may_be_any_text(self, database_url, conn):
        conn.execute("create schema t; create table t.items (part text primary key, v text)")
        definition = dg.DynamicPartitionsDefinition(name="odd")
        asset = dg.asset(
            key_prefix="t", name="items", partitions_def=definition, metadata={"partition_expr": "part"},
        )(lambda: Query("select k as part, 'it is ' || k as v from unnest(%(partition_keys)s::text[]) k"))  # fmt: skip

        @dg.asset(partitions_def=definition, ins={"given": dg.AssetIn(key=["t", "items"])})
        def reader(context, given: pd.DataFrame) -> None:
            assert given["v"].tolist() == [f"it is {context.partition_key}"]

        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions("odd", ODD_KEYS)
            for number, key in enumerate(ODD_KEYS, 1):
                result = materialize(database_url, asset, reader, partition_key=key, instance=instance)
                assert materialized(result, "t/items") == {key: 1}
                assert conn.execute("select count(*) from t.items").fetchone() == (number,)
        assert dict(rows(conn, "t.items")) == {key: f"it is {key}" for key in ODD_KEYS}
