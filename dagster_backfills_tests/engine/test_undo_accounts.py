"""The records of an undo: failure ledger, run records and audit log."""

import pytest

from dagster_backfills.engine import audit
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.runner import Runner
from dagster_backfills.engine.undo import find, undo
from dagster_backfills.errors import UserError
from dagster_backfills_tests.engine.running import by_unit, fill, opened, run, totals
from dagster_backfills_tests.engine.undoing import tables, undone


def outcomes(conn):
    return dict(conn.execute("select run_id, outcome from backfill.runs where undoes is not null").fetchall())


def test_undoing_a_run_does_not_resolve_its_failures(database_url, conn):
    keys = fill(conn, parts=1, units=3)
    conn.execute("update t.source set v = '5000' where unit = 'p001-u0002'")
    run(database_url, [by_unit], keys, RunIdentity("one"), batch_units=1)
    undone(database_url, "one", batch_units=1)
    still_open = conn.execute("select unit from backfill.failures where resolved_at is null").fetchall()
    assert still_open == [("p001-u0002",)]


def test_the_next_undo_resolves_the_failures_of_an_earlier_undo(database_url, conn):
    keys = fill(conn, parts=1, units=2)
    run(database_url, [by_unit], keys, RunIdentity("one"))
    conn.execute(
        "create table t.notes (unit text references t.units); insert into t.notes values ('p001-u0001')"
    )
    undone(database_url, "one")
    failures = "select unit, resolved_at is null from backfill.failures"
    assert conn.execute(failures).fetchall() == [("p001-u0001", True)]
    conn.execute("drop table t.notes")
    undone(database_url, "one")
    assert conn.execute(failures).fetchall() == [("p001-u0001", False)]


def test_the_next_undo_closes_the_record_of_a_killed_undo(database_url, conn):
    keys = fill(conn, parts=1, units=2)
    run(database_url, [by_unit], keys, RunIdentity("one"))
    conn.execute(
        "insert into backfill.runs (run_id, step, root_run_id, assets, partitions, undoes)"
        " values ('killed', 'undo', 'killed', array['t/units'], 1, 'one')"
    )
    undone(database_url, "one", name="again")
    assert outcomes(conn) == {"killed": "interrupted", "again": "succeeded"}


def test_two_undos_of_one_run_at_the_same_time_leave_each_other_s_record_alone(database_url, conn):
    keys = fill(conn, parts=1, units=2)
    run(database_url, [by_unit, totals], keys, RunIdentity("one"))
    undoing = find(conn, "one")
    undos = {
        asset: undo(Runner(lambda: opened(database_url), RunIdentity(asset)), undoing.only([asset]))
        for asset in undoing.shapes
    }
    for batches in undos.values():
        next(batches)
    assert outcomes(conn) == {"t/units": "running", "t/parts": "running"}
    for batches in undos.values():
        assert list(batches) == []
    assert outcomes(conn) == {"t/units": "succeeded", "t/parts": "succeeded"}
    assert tables(conn) == ([], [])


def test_the_audit_log_shows_how_an_undo_ended(database_url, conn):
    keys = fill(conn, parts=1, units=2)
    run(database_url, [by_unit], keys, RunIdentity("one"))
    undone(database_url, "one", name="back")
    run(database_url, [by_unit], keys, RunIdentity("two"))
    conn.execute("alter table t.units add note text")
    with pytest.raises(UserError, match="it now has note"):
        undone(database_url, "two", name="refused")
    outcomes = {entry["target"]: (entry["action"], entry["outcome"]) for entry in audit.latest(conn, 10)}
    assert outcomes == {"one": ("undo", "done"), "two": ("undo", "failed")}
