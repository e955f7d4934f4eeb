"""What an undo leaves in the ledger, in the accounts of runs, and in the record of who asked for what."""

import pytest

from dagster_backfills.engine import audit
from dagster_backfills.engine.ledger import RunIdentity
from dagster_backfills.errors import UserError
from dagster_backfills_tests.engine.running import by_unit, fill, run
from dagster_backfills_tests.engine.undoing import undone


def outcomes(conn):
    return dict(conn.execute("select run_id, outcome from backfill.runs where undoes is not null").fetchall())


def test_a_unit_that_could_not_be_written_is_still_so_when_the_run_is_undone(database_url, conn):
    keys = fill(conn, parts=1, units=3)
    conn.execute("update t.source set v = '5000' where unit = 'p001-u0002'")
    run(database_url, [by_unit], keys, RunIdentity("one"), batch_units=1)
    undone(database_url, "one", batch_units=1)
    still_open = conn.execute("select unit from backfill.failures where resolved_at is null").fetchall()
    assert still_open == [("p001-u0002",)]


def test_a_row_that_could_not_be_taken_back_is_done_with_by_the_next_undo(database_url, conn):
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


def test_the_account_of_an_undo_that_was_killed_is_closed_by_the_next(database_url, conn):
    keys = fill(conn, parts=1, units=2)
    run(database_url, [by_unit], keys, RunIdentity("one"))
    conn.execute(
        "insert into backfill.runs (run_id, step, root_run_id, assets, partitions, undoes)"
        " values ('killed', 'undo', 'killed', array['t/units'], 1, 'one')"
    )
    undone(database_url, "one", name="again")
    assert outcomes(conn) == {"killed": "interrupted", "again": "succeeded"}


def test_who_asked_for_an_undo_reads_how_it_ended(database_url, conn):
    keys = fill(conn, parts=1, units=2)
    run(database_url, [by_unit], keys, RunIdentity("one"))
    undone(database_url, "one", name="back")
    run(database_url, [by_unit], keys, RunIdentity("two"))
    conn.execute("alter table t.units add note text")
    with pytest.raises(UserError, match="it now has note"):
        undone(database_url, "two", name="refused")
    said = {entry["target"]: (entry["action"], entry["outcome"]) for entry in audit.latest(conn, 10)}
    assert said == {"one": ("undo", "done"), "two": ("undo", "failed")}
