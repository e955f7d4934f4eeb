"""Partial failures in Dagster: reports, failures and relaunches for both assets of a write set."""

import dagster as dg
import pandas as pd
import psycopg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator

from dagster_backfills.engine.model import Query, Target, Write, WriteSet
from dagster_backfills_tests.dagster.storing import (
    FIRST,
    LAST,
    failure_description,
    materialize,
    materialized,
    metadata,
    open_failures,
    resources,
)
from dagster_backfills_tests.engine.running import DUE, PARTS, UNITS, computed, fill, units_of

KEYS = [f"p{n:03}" for n in range(1, 13)]


def stats(unit=None, units_write=None, retries=None):
    """Two assets of one write set, like a domain's."""
    targets = Target("t/units", "part", unit=unit), Target("t/parts", "part")

    @dg.multi_asset(
        outs={
            target.asset.split("/")[1]: dg.AssetOut(
                key=target.asset.split("/"), metadata=target.metadata(), is_required=False
            )
            for target in targets
        },
        internal_asset_deps={"units": set(), "parts": {dg.AssetKey(["t", "units"])}},
        can_subset=True,
        retry_policy=retries,
        partitions_def=dg.StaticPartitionsDefinition(KEYS),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def both(context: dg.AssetExecutionContext):
        makers = {
            "units": units_write
            or Write(targets[0], Query(UNITS), units=Query(DUE) if unit is not None else None),
            "parts": Write(targets[1], Query(PARTS)),
        }
        chosen = [n for n in makers if n in context.op_execution_context.selected_output_names]
        yield dg.Output(WriteSet([makers[n] for n in chosen]), chosen[0])
        for name in chosen[1:]:
            yield dg.Output(None, name)

    return both


@pytest.mark.parametrize("batch_units", [1, 5, 10_000])
def test_good_partitions_are_reported_once_and_the_failure_lists_just_the_bad(
    database_url, conn, batch_units
):
    fill(conn, parts=12, units=2)
    conn.execute("update t.source set v = '5000' where unit in ('p003-u0001', 'p012-u0002')")
    result = materialize(
        database_url,
        stats(retries=dg.RetryPolicy(max_retries=1)),
        keys=(KEYS[0], KEYS[-1]),
        expect=False,
        settings={"batch_units": batch_units},
    )
    good = {key: 1 for key in KEYS if key not in ("p003", "p012")}
    assert materialized(result, "t/units") == good
    assert materialized(result, "t/parts") == good
    text = failure_description(result)
    assert "2 of 12 partitions could not be written" in text
    assert "'p003': new row for relation \"units\" violates check constraint" in text and "'p012'" in text
    assert all(f"'{key}'" not in text for key in good)
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    assert [entry[:3] for entry in open_failures(conn)] == [
        ("t/units", "p003", None),
        ("t/units", "p012", None),
    ]

    conn.execute("update t.source set v = '5'")
    for key in ("p003", "p012"):
        again = materialize(database_url, stats(), partition_key=key)
        assert materialized(again, "t/units") == materialized(again, "t/parts") == {key: 1}
    assert open_failures(conn) == [] and len(units_of(conn)) == 24


def test_a_failing_unit_fails_neither_its_partition_nor_the_run(database_url, conn):
    fill(conn, parts=12, units=3)
    conn.execute("update t.source set v = '5000' where unit = 'p003-u0001'")
    result = materialize(database_url, stats("unit"), keys=(KEYS[0], KEYS[-1]))
    assert materialized(result, "t/units") == materialized(result, "t/parts") == {key: 1 for key in KEYS}
    found = metadata(result, "t/units", "p003")
    assert found["failed_units"] == 1 and found["dagster/partition_row_count"] == 2
    assert metadata(result, "t/units", "p012")["run_failed_units"] == 1
    assert metadata(result, "t/parts", "p003")["rows_inserted"] == 1
    assert [entry[:3] for entry in open_failures(conn)] == [("t/units", "p003", "p003-u0001")]


def test_one_asset_of_the_set_can_be_materialized_alone(database_url, conn):
    fill(conn, parts=12, units=2)
    result = materialize(
        database_url, stats(), keys=(KEYS[0], KEYS[-1]), selection=[dg.AssetKey(["t", "units"])]
    )
    assert materialized(result, "t/units") == {key: 1 for key in KEYS}
    assert materialized(result, "t/parts") == {}
    assert conn.execute("select count(*) from t.parts").fetchone() == (0,)


def test_when_the_last_partition_or_all_fail_nothing_is_reported_for_them(database_url, conn):
    fill(conn, parts=12, units=2)
    conn.execute("update t.source set v = '5000'")
    result = materialize(database_url, stats(), keys=(KEYS[0], KEYS[-1]), expect=False)
    assert materialized(result, "t/units") == materialized(result, "t/parts") == {}
    assert "12 of 12 partitions" in failure_description(result) and "and 7 more" in failure_description(
        result
    )


@pytest.mark.parametrize("batch_units", [1, 10_000])
def test_a_correct_table_is_reported_even_if_a_later_table_of_its_set_fails(database_url, conn, batch_units):
    fill(conn, parts=12, units=2)
    conn.execute("alter table t.parts add check (part not in ('p003', 'p012'))")
    both, last = stats(), KEYS[-1]
    materialize(database_url, both, keys=(last, last), selection=[dg.AssetKey(["t", "units"])])
    result = materialize(
        database_url, both, keys=(KEYS[0], last), expect=False, settings={"batch_units": batch_units}
    )
    # For p003 the first table's new rows are rolled back with the second table's. For p012 they existed already.
    assert materialized(result, "t/units") == {key: 1 for key in KEYS if key != "p003"}
    assert materialized(result, "t/parts") == {key: 1 for key in KEYS if key not in ("p003", "p012")}
    assert metadata(result, "t/units", "p012")["rows_unchanged"] == 2
    assert {part for (part,) in conn.execute("select part from t.units")} == set(KEYS) - {"p003"}


def test_partitions_written_before_the_run_broke_are_reported(database_url, conn):
    fill(conn, parts=12, units=2)

    def breaks(connection, keys, units):
        if "p007" in keys:
            raise RuntimeError("the rules are broken")

    asset = stats("unit", computed(breaks))
    result = materialize(
        database_url,
        asset,
        keys=(KEYS[0], KEYS[-1]),
        expect=False,
        settings={"batch_units": 4, "target_seconds": 0},
    )
    assert materialized(result, "t/units") == materialized(result, "t/parts") == {k: 1 for k in KEYS[:6]}
    assert open_failures(conn) == []


def test_a_run_with_given_keys_reports_each_partition(database_url, conn):
    fill(conn, parts=12, units=2)
    conn.execute("update t.source set v = '5000' where part = 'p004'")
    writes = [Write(Target("t/units", "part"), Query(UNITS)), Write(Target("t/parts", "part"), Query(PARTS))]

    @dg.op(out=dg.Out(io_manager_key="io_manager"))
    def refresh() -> WriteSet:
        return WriteSet(writes, keys=["p002", "p004", "p009", "p002"])

    @dg.graph
    def repair():
        refresh()

    result = repair.to_job(resource_defs=dict(resources(database_url))).execute_in_process(
        raise_on_error=False
    )
    assert materialized(result, "t/units") == materialized(result, "t/parts") == {"p002": 1, "p009": 1}
    assert "1 of 3 partitions" in failure_description(result)


def test_a_resumed_run_does_the_rest_and_reports_all_partitions(database_url, conn):
    fill(conn, parts=12, units=2)

    def breaks(connection, keys, units):
        if "p007" in keys:
            raise RuntimeError("the rules are broken")

    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions(
            assets=[stats("unit", computed(breaks))],
            resources=resources(database_url, batch_units=4, target_seconds=0),
            jobs=[dg.define_asset_job("all_stats", executor_def=dg.in_process_executor)],
        ).resolve_job_def("all_stats")
        tags = {FIRST: KEYS[0], LAST: KEYS[-1]}
        first = job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
        assert not first.success
        before = conn.execute("select xmin::text from t.units order by unit").fetchall()
        mended = dg.Definitions(
            assets=[stats("unit")],
            resources=resources(database_url),
            jobs=[dg.define_asset_job("all_stats", executor_def=dg.in_process_executor)],
        ).resolve_job_def("all_stats")
        run = instance.create_run_for_job(
            mended, tags={**tags, "dagster/is_resume_retry": "true"},
            root_run_id=first.run_id, parent_run_id=first.run_id,
        )  # fmt: skip
        events = list(execute_run_iterator(InMemoryJob(mended), run, instance))
    reported = [e.partition for e in events if e.is_step_materialization and e.asset_key.path[-1] == "units"]
    assert sorted(reported) == KEYS
    assert conn.execute("select xmin::text from t.units order by unit").fetchall()[: len(before)] == before
    done = conn.execute(
        "select b.run_id = %s, p from backfill.batches b, unnest(b.partitions) p where b.asset = 't/units' order by p",
        [first.run_id],
    ).fetchall()
    assert done == [(key < "p007", key) for key in KEYS]


def test_a_lost_connection_requests_a_retry_of_the_step(database_url, conn, server_url):
    fill(conn, parts=12, units=2)
    name = conn.info.dbname

    def accept_connections(whether):
        with psycopg.connect(server_url, autocommit=True) as server:
            server.execute(f'alter database "{name}" allow_connections {whether}')

    def cut(connection, keys, units):
        accept_connections(False)
        conn.execute("select pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])

    try:
        result = materialize(
            database_url,
            stats("unit", computed(cut)),
            partition_key="p001",
            expect=False,
            settings={"retry_wait_seconds": 0.1, "reconnect_seconds": 0.1},
        )
    finally:
        accept_connections(True)
    assert any(e.is_step_up_for_retry for e in result.all_events)


def test_a_read_only_server_is_named_once(database_url, conn):
    fill(conn, parts=12, units=2)
    name = conn.info.dbname
    conn.execute(f'alter database "{name}" set default_transaction_read_only = on')
    result = materialize(database_url, stats(), partition_key="p001", expect=False)
    assert "read-only" in failure_description(result)


def test_a_missing_privilege_is_named(database_url, conn, server_url):
    fill(conn, parts=1, units=1)
    conn.execute("create role reader login") if not conn.execute(
        "select from pg_roles where rolname = 'reader'"
    ).fetchone() else None
    conn.execute("grant usage on schema t to reader; grant select on all tables in schema t to reader")
    url = database_url.replace("postgres@", "reader@")
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        pytest.skip("this server lets in no other role")
    result = materialize(url, stats(), partition_key="p001", expect=False)
    assert "permission denied" in failure_description(result)


def test_a_bad_frame_fails_only_its_partition(database_url, conn):
    conn.execute(
        "create schema t; create table t.items (part text, id int primary key, v int check (v < 10))"
    )
    asset = dg.asset(
        key_prefix="t", name="items", metadata={"partition_expr": "part"},
        partitions_def=dg.StaticPartitionsDefinition(["a", "b", "c"]), backfill_policy=dg.BackfillPolicy.single_run(),
    )(lambda: pd.DataFrame({"part": ["a", "b", "c"], "id": [1, 2, 3], "v": ["1", "many", "3"]}))  # fmt: skip
    result = materialize(database_url, asset, keys=("a", "c"), expect=False)
    assert materialized(result, "t/items") == {"a": 1, "c": 1}
    assert "'b': invalid input syntax for type integer: \"many\"" in failure_description(result)
    assert conn.execute("select part from t.items order by 1").fetchall() == [("a",), ("c",)]


def test_a_frame_with_units_fails_row_by_row(database_url, conn):
    conn.execute(
        "create schema t; create table t.items (part text, id uuid primary key, v int check (v < 10))"
    )
    ids = [f"AAAAAAAA-0000-0000-0000-00000000000{n}" for n in range(3)]
    asset = dg.asset(
        key_prefix="t", name="items", metadata={"partition_expr": "part", "unit_column": "id"},
        partitions_def=dg.StaticPartitionsDefinition(["a", "b"]),
    )(lambda: pd.DataFrame({"part": "a", "id": ids, "v": [1, 50, 3]}))  # fmt: skip
    result = materialize(database_url, asset, partition_key="a")
    assert metadata(result, "t/items", "a")["failed_units"] == 1
    assert open_failures(conn)[0][:3] == ("t/items", "a", ids[1].lower())
    assert conn.execute("select v from t.items order by 1").fetchall() == [(1,), (3,)]
