"""Options of a `WriteSet`: a function around each partition, its own settings and its own address."""

from typing import Any

import dagster as dg
import psycopg
import pytest
from psycopg import sql

from dagster_backfills.engine.model import Query, Target, Write, WriteSet
from dagster_backfills.engine.outcome import Outcome
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.table.address import ByValue
from dagster_backfills_tests.dagster.storing import failure_description, materialize, metadata, rows

PARTS = dg.StaticPartitionsDefinition(["a", "b", "c"])
TARGET = Target("t/counts", partition_by="part")
COUNTS = Write(TARGET, Query("select part, n from t.source where part = any(%(partition_keys)s)"))


@pytest.fixture
def t(conn: psycopg.Connection) -> psycopg.Connection:
    conn.execute("create schema t")
    conn.execute("create table t.source (part text, n int)")
    conn.execute("insert into t.source values ('a', 1), ('b', 2), ('c', 3)")
    conn.execute("create table t.counts (part text primary key, n int check (n <> 13))")
    return conn


def counts(write_set: WriteSet) -> dg.AssetsDefinition:
    @dg.asset(
        key=["t", "counts"],
        partitions_def=PARTS,
        metadata=TARGET.metadata(),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def made() -> WriteSet:
        return write_set

    return made


class Watch:
    """Records what happens around each partition."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def __call__(self, key: str, run: RunIdentity, work: Any) -> dict[str, Any]:
        self.seen.append(("before", key))
        outcome: Outcome = work(RunIdentity(run.run_id, f"{run.step} {key}"))
        failure = outcome.failed.get(key)
        self.seen.append(("failed" if failure else "after", key))
        return {"watched": key}


def test_each_partition_is_written_separately_in_order_and_its_metadata_is_reported(
    database_url: str, t: psycopg.Connection
) -> None:
    watch = Watch()
    result = materialize(database_url, counts(WriteSet([COUNTS], around=watch)), keys=("a", "c"))
    assert watch.seen == [(at, key) for key in "abc" for at in ("before", "after")]
    assert rows(t, "t.counts") == [("a", 1), ("b", 2), ("c", 3)]
    for key in "abc":
        shown = metadata(result, "t/counts", key)
        assert (shown["watched"], shown["rows_inserted"]) == (key, 1)
        assert "dagster/column_schema" in metadata(result, "t/counts", "c")
    steps = t.execute("select step, outcome from backfill.runs order by started_at").fetchall()
    assert steps == [(f"t__counts {key}", "succeeded") for key in "abc"]


def test_a_failed_partition_fails_alone_and_is_visible_to_the_function_around_it(
    database_url: str, t: psycopg.Connection
) -> None:
    t.execute("update t.source set n = 13 where part = 'b'")
    watch = Watch()
    result = materialize(
        database_url, counts(WriteSet([COUNTS], around=watch)), keys=("a", "c"), expect=False
    )
    assert failure_description(result).startswith("1 of 3 partitions could not be written ('b': ")
    assert ("failed", "b") in watch.seen and ("after", "c") in watch.seen
    assert rows(t, "t.counts") == [("a", 1), ("c", 3)]


def test_an_error_that_ends_the_run_passes_through_the_function_around_the_partition(
    database_url: str, t: psycopg.Connection
) -> None:
    t.execute("drop table t.counts")
    errors: list[str] = []

    def around(key: str, run: RunIdentity, work: Any) -> dict[str, Any]:
        try:
            work(run)
        except Exception as error:
            errors.append(str(error))
            raise
        return {}

    own = Write(TARGET, COUNTS.source, address=ByValue("part", "text"))
    result = materialize(database_url, counts(WriteSet([own], around=around)), keys=("a", "b"), expect=False)
    assert [error.startswith("Table t.counts does not exist") for error in errors] == [True]
    assert "Table t.counts does not exist" in failure_description(result)


def test_a_write_set_uses_its_own_settings(database_url: str, t: psycopg.Connection) -> None:
    small = WriteSet([COUNTS], settings=EngineSettings(batch_units=1, max_batch_units=1, target_seconds=0))
    materialize(database_url, counts(small), keys=("a", "c"))
    batches = "select count(*) from backfill.batches"
    assert t.execute(batches).fetchone() == (3,)
    materialize(database_url, counts(WriteSet([COUNTS])), keys=("a", "c"))
    assert t.execute(batches).fetchone() == (4,)


def test_rows_outside_of_a_write_sets_own_address_are_unchanged(
    database_url: str, t: psycopg.Connection
) -> None:
    class Odd(ByValue):
        def predicate(self, alias: str) -> sql.Composable:
            return super().predicate(alias) + sql.SQL(" and {} %% 2 = 1").format(sql.Identifier(alias, "n"))

    t.execute("insert into t.counts values ('a', 8), ('b', 7)")
    t.execute("delete from t.source where part in ('a', 'b')")
    own = Write(TARGET, COUNTS.source, address=Odd("part", "text"))
    materialize(database_url, counts(WriteSet([own])), keys=("a", "c"))
    assert rows(t, "t.counts") == [("a", 8), ("c", 3)]
