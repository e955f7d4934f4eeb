"""A null unit fails its partition, whether the partition is written whole or in slices."""

from dataclasses import replace

import pandas as pd
import pytest
from psycopg import sql

from dagster_backfills.engine.model import Frame, Query, Target, Write
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills_tests.engine.running import (
    UNITS,
    by_unit,
    computed,
    fill,
    ledger_of,
    run,
    totals,
    units_of,
)

# The second table's unit is not part of its key and may be null.
TABLES = """
alter table t.source drop constraint source_pkey, alter unit drop not null;
create table t.loose (part text not null, id text primary key, unit text, v int);
"""
# Returns no row of units that are listed, unless it is null.
LOOSE = UNITS.replace("s.unit,", "s.unit, coalesce(s.unit, 'nobody') as id,")
loose = Write(Target("t/loose", "part", unit="unit"), Query(LOOSE), units=by_unit.units)
WAYS = pytest.mark.parametrize("batch_units", [2, 100], ids=["slices", "whole"])


@pytest.fixture
def keys(conn):
    """Three partitions of four units; the second one also has a row without a unit."""
    keys = fill(conn, parts=3, units=4)
    conn.execute(TABLES)
    conn.execute("insert into t.source values ('p002', null, '7')")
    return keys


def framed(conn):
    rows = conn.execute(LOOSE, {"partition_keys": ["p001", "p002", "p003"], "unit_keys": None})
    return Frame(pd.DataFrame(rows.fetchall(), columns=["part", "unit", "id", "v"]))


def numbers_of_rows(conn, asset):
    table = sql.Identifier(*asset.split("/"))
    return conn.execute(
        sql.SQL("select part, count(*) from {} group by 1 order by 1").format(table)
    ).fetchall()


def of_mode(mode):
    return replace(loose, target=replace(loose.target, mode=mode))


@WAYS
@pytest.mark.parametrize(
    "make",
    [
        lambda conn: by_unit,
        lambda conn: computed(lambda *_: None),
        lambda conn: loose,
        lambda conn: of_mode("insert_missing"),
        lambda conn: of_mode("replace"),
        lambda conn: replace(loose, source=framed(conn), units=None),
    ],
    ids=["query", "compute", "nullable", "insert_missing", "replace", "frame"],
)
def test_a_null_unit_fails_its_partition_only(database_url, conn, keys, make, batch_units):
    write = make(conn)
    asset = write.target.asset
    outcome = run(database_url, [write], keys, batch_units=batch_units)
    assert sorted(outcome.done) == ["p001", "p003"] and list(outcome.failed) == ["p002"]
    message = f"Asset {asset} returns a null unit"
    assert ledger_of(conn) == [(asset, "p002", None, "NullUnitError", message, 1)]
    assert numbers_of_rows(conn, asset) == [("p001", 4), ("p003", 4)]
    conn.execute("delete from t.source where unit is null")
    run(database_url, [make(conn)], keys, batch_units=batch_units)
    assert numbers_of_rows(conn, asset) == [("p001", 4), ("p002", 4), ("p003", 4)]
    assert ledger_of(conn) == []


@pytest.mark.parametrize("write", [by_unit, loose], ids=["not null", "nullable"])
def test_a_null_unit_that_the_units_statement_leaves_out_fails_its_partition(database_url, conn, keys, write):
    listed = Query(write.units.sql + " and unit is not null")
    outcome = run(database_url, [replace(write, units=listed)], keys)
    assert list(outcome.failed) == ["p002"] and "null unit" in ledger_of(conn)[0][4]


def test_a_null_in_a_computed_slice_fails_the_units_of_the_slice(database_url, conn, keys):
    def function(connection, partitions, units):
        found = connection.execute(LOOSE, {"partition_keys": partitions, "unit_keys": units}).fetchall()
        return pd.DataFrame(found, columns=["part", "unit", "id", "v"]).replace(
            {"unit": {"p003-u0002": None}}
        )

    write = replace(loose, source=replace(computed(lambda *_: None).source, function=function))
    outcome = run(database_url, [write], ["p001", "p003"], batch_units=2)
    assert [failure.unit for failure in outcome.unit_failures] == ["p003-u0002"]
    assert len(outcome.done) == 2


def test_a_listed_null_fails_the_table_with_units_and_not_the_last_one_written(database_url, conn, keys):
    run(database_url, [by_unit, totals], keys, batch_units=2)
    assert [entry[:2] for entry in ledger_of(conn)] == [("t/units", "p002")]


def test_a_null_unit_that_appears_before_a_run_resumes_fails_its_partition(database_url, conn, keys):
    def die(connection, partitions, units):
        if "p001-u0003" in units:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        run(database_url, [computed(die)], ["p001"], RunIdentity("one"), batch_units=2)
    assert len(units_of(conn)) == 2
    conn.execute("insert into t.source values ('p001', null, '7')")
    outcome = run(database_url, [by_unit], ["p001"], RunIdentity("one"), batch_units=2)
    assert list(outcome.failed) == ["p001"]


@WAYS
@pytest.mark.parametrize("mode", ["upsert", "replace"])
def test_stored_rows_without_a_unit_are_deleted(database_url, conn, keys, mode, batch_units):
    conn.execute("insert into t.loose values ('p001', 'old', null, 1), ('p002', 'other', null, 1)")
    outcome = run(database_url, [of_mode(mode)], ["p001"], batch_units=batch_units)
    assert outcome.of("t/loose", "p001").deleted == 1
    assert conn.execute("select id from t.loose where unit is null").fetchall() == [("other",)]
