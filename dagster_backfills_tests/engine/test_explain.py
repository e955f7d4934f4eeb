"""Explaining a unit: its row, its query's current result, runs that changed it, stale, failed and undone entries."""

from dagster_backfills.engine.explain import Part, explain
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.table.catalog import read_table
from dagster_backfills_tests.engine.running import addressed, by_unit, fill, run, totals
from dagster_backfills_tests.engine.undoing import undone


def explained(conn, unit, keys):
    writes = addressed([by_unit, totals])
    parts = [Part(write, read_table(conn, *write.target.schema_and_table)) for write in writes]
    return explain(conn, parts, unit, keys)


def test_explain_shows_a_units_row_its_runs_and_previous_versions(database_url, conn):
    keys = fill(conn, parts=2, units=2)
    run(database_url, [by_unit, totals], keys, RunIdentity("one"))
    conn.execute("update t.source set v = '9' where unit = 'p002-u0001'")
    run(database_url, [by_unit, totals], keys, RunIdentity("two"))
    conn.execute("update t.source set v = '5000' where unit = 'p002-u0001'")
    run(database_url, [by_unit, totals], keys, RunIdentity("three"))
    conn.execute("select backfill.mark_stale('t/units', array['p002'])")
    found = explained(conn, "p002-u0001", keys)
    assert found.partitions == ["p002"]
    units, parts = found.tables
    row = {"part": "p002", "unit": "p002-u0001"}
    assert units.rows == [{"v": 9} | row] and units.now == [{"v": 5000} | row]
    assert [(c["run_id"], c["change"], c["before"]) for c in units.changes] == [
        ("two", "updated", {"v": 1} | row), ("one", "inserted", None),
    ]  # fmt: skip
    assert (parts.rows, parts.now, parts.changes) == ([], None, [])
    assert [f["unit"] for f in found.failures] == ["p002-u0001"]
    assert [(s["asset"], s["partition"]) for s in found.stale] == [("t/units", "p002")]


def test_explain_shows_a_partition_and_a_deleted_row(database_url, conn):
    keys = fill(conn, parts=2, units=2)
    run(database_url, [by_unit, totals], keys, RunIdentity("one"))
    undone(database_url, "one", ["p001"], name="back")
    found = explained(conn, "p001", keys)
    assert [u["run_id"] for u in found.undone] == ["back", "back"]
    assert found.tables[1].rows == [] and len(found.tables[0].now) == 2
    gone = explained(conn, "p001-u0001", keys)
    assert [(c["run_id"], c["undoes"], c["change"]) for c in gone.tables[0].changes] == [
        ("back", "one", "deleted"), ("one", None, "inserted"),
    ]  # fmt: skip
    assert not explained(conn, "nobody", keys).is_known


def test_a_deleted_row_with_a_composite_key_is_found_in_the_journal(database_url, conn):
    keys = fill(conn, parts=1, units=2)
    conn.execute("alter table t.units drop constraint units_pkey, add primary key (part, unit)")
    run(database_url, [by_unit, totals], keys, RunIdentity("one"))
    conn.execute("delete from t.source where unit = 'p001-u0002'")
    run(database_url, [by_unit, totals], keys, RunIdentity("two"))
    gone = explained(conn, "p001-u0002", keys)
    assert gone.is_known
    assert gone.tables[0].rows == []
    assert [(c["run_id"], c["change"]) for c in gone.tables[0].changes] == [
        ("two", "deleted"), ("one", "inserted"),
    ]  # fmt: skip
