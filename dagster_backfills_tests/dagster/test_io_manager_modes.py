"""Storing what assets return: write modes, and invalid requests."""

import dagster as dg
import pandas as pd
import pytest

from dagster_backfills.engine.model import Compute, Query
from dagster_backfills_tests.dagster.storing import (
    failure_description,
    failure_text,
    frame,
    items,
    materialize,
    metadata,
    rows,
    versions,
)


class TestWriteModes:
    def test_unchanged_rows_are_not_written(self, database_url, conn):
        conn.execute(
            "create schema t; create table t.items (id int primary key, v text, n numeric, j json, a text[],"
            " updated_at timestamptz not null default now())"
        )
        source = Query(
            """select id, 'v' || id as v, case when id > 1 then 1.50 end as n, '{"a": 1}'::json as j,
                '{x,"y z"}'::text[] as a
            from generate_series(1, 5) id"""
        )
        asset = items(lambda: source, metadata={})
        materialize(database_url, asset)
        before = versions(conn, "t.items")
        result = materialize(database_url, asset)
        assert versions(conn, "t.items") == before
        assert metadata(result, "t/items")["rows_unchanged"] == 5

    def test_only_the_row_that_differs_is_written(self, database_url, conn, table):
        conn.execute("insert into t.items values ('a', 1, 'x'), ('a', 2, 'y'), ('a', 3, null)")
        before = set(versions(conn, table))
        asset = items(lambda: frame(("a", 1, "x"), ("a", 2, "Y"), ("a", 3, None)), metadata={})
        materialize(database_url, asset)
        assert len(before & set(versions(conn, table))) == 2
        assert rows(conn, table, "id") == [("a", 1, "x"), ("a", 2, "Y"), ("a", 3, None)]

    def test_a_changed_row_gets_a_new_updated_at(self, database_url, conn):
        conn.execute(
            "create schema t;"
            "create table t.items (id int primary key, v text, updated_at timestamptz default '2000-01-01')"
        )
        conn.execute("insert into t.items values (1, 'a'), (2, 'b')")
        materialize(database_url, items(lambda: pd.DataFrame({"id": [1, 2], "v": ["a", "c"]}), metadata={}))
        assert conn.execute("select updated_at < '2000-01-02' from t.items where id = 1").fetchone() == (
            True,
        )
        assert conn.execute("select updated_at > '2020-01-01' from t.items where id = 2").fetchone() == (
            True,
        )

    def test_insert_missing_changes_no_existing_row(self, database_url, conn, table):
        conn.execute("insert into t.items values ('a', 1, 'old'), ('a', 9, 'not in the source')")
        before = set(versions(conn, table))
        asset = items(
            lambda: frame(("a", 1, "new"), ("a", 2, "new")),
            metadata={"partition_expr": "part", "write_mode": "insert_missing"},
            partitions_def=dg.StaticPartitionsDefinition(["a"]),
        )
        result = materialize(database_url, asset, partition_key="a")
        assert rows(conn, table, "id") == [("a", 1, "old"), ("a", 2, "new"), ("a", 9, "not in the source")]
        assert before < set(versions(conn, table))
        assert metadata(result, "t/items", "a")["rows_inserted"] == 1
        assert metadata(result, "t/items", "a")["rows_unchanged"] == 1
        # It has three rows, but the result has no count of them.
        assert "dagster/partition_row_count" not in metadata(result, "t/items", "a")

    def test_a_query_that_returns_only_missing_rows_changes_no_existing_row(self, database_url, conn, table):
        conn.execute("insert into t.items values ('a', 1, 'old')")
        before = set(versions(conn, table))
        asset = items(
            lambda: Query(
                "select 'a' as part, n as id, 'new' as v from unnest(array[1, 2, 2]) as n", only_missing=True
            ),
            metadata={"partition_expr": "part", "write_mode": "insert_missing"},
            partitions_def=dg.StaticPartitionsDefinition(["a"]),
        )
        result = materialize(database_url, asset, partition_key="a")
        assert rows(conn, table, "id") == [("a", 1, "old"), ("a", 2, "new")]
        assert before < set(versions(conn, table))
        assert metadata(result, "t/items", "a")["rows_inserted"] == 1

    def test_replace_needs_no_key_and_rewrites_the_slice(self, database_url, conn):
        conn.execute("create schema t; create table t.log (part text, line text)")
        conn.execute("insert into t.log values ('a', 'old'), ('b', 'kept')")
        asset = dg.asset(
            key_prefix="t", name="log", metadata={"partition_expr": "part", "write_mode": "replace"},
            partitions_def=dg.StaticPartitionsDefinition(["a", "b"]),
        )(lambda: pd.DataFrame({"part": ["a", "a"], "line": ["same", "same"]}))  # fmt: skip
        result = materialize(database_url, asset, partition_key="a")
        assert rows(conn, "t.log", "1, 2") == [("a", "same"), ("a", "same"), ("b", "kept")]
        assert metadata(result, "t/log", "a")["rows_deleted"] == 1

    def test_a_row_that_moves_to_another_partition_is_not_lost(self, database_url, conn):
        conn.execute("create schema t; create table t.users (id int primary key, part text)")
        conn.execute("insert into t.users values (1, 'a'), (2, 'a')")
        asset = dg.asset(
            key_prefix="t", name="users", metadata={"partition_expr": "part"},
            partitions_def=dg.StaticPartitionsDefinition(["a", "b"]), backfill_policy=dg.BackfillPolicy.single_run(),
        )(lambda: Query(
            "select * from (values (1, 'a'), (2, 'b')) v (id, part) where part = any(%(partition_keys)s::text[])"
        ))  # fmt: skip
        for settings in ({}, {"batch_units": 1, "target_seconds": 0}):
            conn.execute("update t.users set part = 'a'")
            materialize(database_url, asset, keys=("a", "b"), settings=settings)
            assert rows(conn, "t.users") == [(1, "a"), (2, "b")]

    def test_the_key_can_be_a_unique_constraint_beside_a_generated_primary_key(self, database_url, conn):
        conn.execute(
            "create schema t; create table t.items (row_id bigint generated always as identity primary key,"
            " part text not null, id int not null, v text, unique (part, id))"
        )
        conn.execute("insert into t.items (part, id, v) values ('a', 1, 'x')")
        materialize(database_url, items(lambda: frame(("a", 1, "y"), ("a", 2, "z")), metadata={}))
        assert rows(conn, "t.items") == [(1, "a", 1, "y"), (2, "a", 2, "z")]

    def test_a_computed_frame_is_written_like_one_that_was_returned(self, database_url, conn, table):
        def compute(connection, keys, units):
            return frame(*((key, 1, f"{len(keys)} in the batch") for key in keys))

        asset = items(
            lambda: Compute(compute),
            partitions_def=dg.StaticPartitionsDefinition(["a", "b", "c"]),
            backfill_policy=dg.BackfillPolicy.single_run(),
        )
        materialize(database_url, asset, keys=("a", "c"), settings={"batch_units": 2, "target_seconds": 0})
        assert rows(conn, table) == [
            ("a", 1, "2 in the batch"), ("b", 1, "2 in the batch"), ("c", 1, "1 in the batch"),
        ]  # fmt: skip

    def test_a_partitioned_table_is_written_like_any_other(self, database_url, conn):
        conn.execute(
            "create schema t;"
            "create table t.items (part text, id int, v text, primary key (part, id)) partition by list (part);"
            "create table t.items_a partition of t.items for values in ('a');"
            "create table t.items_b partition of t.items for values in ('b')"
        )
        conn.execute(
            "insert into t.items values ('a', 1, 'x'), ('a', 2, 'gone'), ('b', 1, 'x'), ('b', 2, 'x')"
        )
        asset = items(
            lambda: frame(("a", 1, "y"), ("a", 3, "new")),
            partitions_def=dg.StaticPartitionsDefinition(["a", "b"]),
        )
        materialize(database_url, asset, partition_key="a")
        assert rows(conn, "t.items", "1, 2") == [("a", 1, "y"), ("a", 3, "new"), ("b", 1, "x"), ("b", 2, "x")]


class TestRefused:
    def test_a_missing_table_gives_an_error_that_names_the_migrations(self, database_url):
        result = materialize(database_url, items(lambda: frame(), metadata={}), expect=False)
        assert "Table t.items does not exist" in failure_description(result)
        assert "backfills migrate" in failure_description(result)

    def test_a_missing_column_is_named(self, database_url, table):
        asset = items(lambda: pd.DataFrame({"part": ["a"], "id": [1], "colour": ["red"]}), metadata={})
        result = materialize(database_url, asset, expect=False)
        assert "t.items has no column 'colour'; it has part, id, v" in failure_description(result)

    def test_a_missing_partition_column_is_named(self, database_url, table):
        asset = items(
            lambda: frame(),
            metadata={"partition_expr": "nope"},
            partitions_def=dg.StaticPartitionsDefinition(["a"]),
        )
        assert "no column 'nope'" in failure_description(
            materialize(database_url, asset, partition_key="a", expect=False)
        )

    def test_partitions_without_a_partition_column_are_refused(self, database_url, table):
        asset = items(lambda: frame(), metadata={}, partitions_def=dg.StaticPartitionsDefinition(["a"]))
        result = materialize(database_url, asset, partition_key="a", expect=False)
        assert "partition_expr" in failure_description(result)

    def test_a_table_without_a_key_is_refused(self, database_url, conn):
        conn.execute("create schema t; create table t.items (part text, id int, v text)")
        result = materialize(database_url, items(lambda: frame(("a", 1, "x")), metadata={}), expect=False)
        assert "no unique constraint" in failure_description(result)

    def test_a_declared_key_that_is_not_unique_is_refused(self, database_url, table):
        asset = items(lambda: frame(("a", 1, "x")), metadata={"key_columns": ["id"]})
        assert "no unique constraint on (id)" in failure_description(
            materialize(database_url, asset, expect=False)
        )

    def test_an_unknown_write_mode_is_refused(self, database_url, table):
        asset = items(lambda: frame(("a", 1, "x")), metadata={"write_mode": "append"})
        assert "'append'" in failure_description(materialize(database_url, asset, expect=False))

    def test_a_column_that_the_database_fills_is_refused(self, database_url, conn):
        conn.execute(
            "create schema t; create table t.items (id int generated always as identity primary key, v text)"
        )
        asset = items(lambda: pd.DataFrame({"id": [1], "v": ["x"]}), metadata={})
        assert "generated by the database" in failure_description(
            materialize(database_url, asset, expect=False)
        )

    def test_rows_of_a_frame_outside_of_the_partition_are_refused_and_nothing_is_written(
        self, database_url, conn, table
    ):
        asset = items(
            lambda: frame(("a", 1, "x"), ("b", 1, "x"), (None, 2, "x")),
            partitions_def=dg.StaticPartitionsDefinition(["a", "b"]),
        )
        result = materialize(database_url, asset, partition_key="a", expect=False)
        assert "2 rows of the frame are" in failure_description(result) and "'b'" in failure_description(
            result
        )
        assert rows(conn, table) == []

    def test_rows_of_a_query_outside_of_the_partition_are_refused(self, database_url, conn, table):
        asset = items(
            lambda: Query("select 'b' as part, 1 as id, 'x' as v"),
            partitions_def=dg.StaticPartitionsDefinition(["a", "b"]),
        )
        result = materialize(database_url, asset, partition_key="a", expect=False)
        assert "'b'" in failure_description(result)
        assert rows(conn, table) == []

    @pytest.mark.parametrize("existing", [[], [("a", 1, "x")]])
    def test_two_rows_for_one_key_are_refused(self, database_url, conn, table, existing):
        for row in existing:
            conn.execute("insert into t.items values (%s, %s, %s)", row)
        asset = items(lambda: frame(("a", 1, "x"), ("a", 1, "y")), metadata={})
        result = materialize(database_url, asset, expect=False)
        assert "duplicate rows" in failure_description(result) and "(a,1)" in failure_description(result)
        assert rows(conn, table) == existing

    def test_an_error_in_a_query_is_shown_with_the_databases_message(self, database_url, table):
        result = materialize(
            database_url, items(lambda: Query("select nope from t.items"), metadata={}), expect=False
        )
        assert "is not valid" in failure_description(result) and "nope" in failure_description(result)

    def test_a_query_with_an_unknown_bind_is_refused(self, database_url, table):
        asset = items(lambda: Query("select * from t.items where part = %(organisation)s"), metadata={})
        assert "organisation" in failure_description(materialize(database_url, asset, expect=False))

    def test_an_output_that_is_not_a_frame_is_refused(self, database_url, table):
        result = materialize(database_url, items(lambda: [1, 2], metadata={}), expect=False)
        assert "can't return list" in failure_description(result)

    def test_a_value_longer_than_its_column_is_an_error_and_is_not_truncated(self, database_url, conn):
        conn.execute("create schema t; create table t.items (id int primary key, v varchar(3), c char(3))")
        asset = items(lambda: Query("select 1 as id, 'abcdef' as v, 'abcdef' as c"), metadata={})
        result = materialize(database_url, asset, expect=False)
        assert "value too long" in failure_text(result)
        assert rows(conn, "t.items") == []

    def test_a_nul_character_is_named_with_its_row(self, database_url, table):
        result = materialize(
            database_url, items(lambda: frame(("a", 1, "x"), ("a", 2, "y\0")), metadata={}), expect=False
        )
        assert "Column 'v' has a NUL character in row 1" in failure_description(result)
