"""Undo: changes are reverted, rows changed since are kept and reported, and an undo is itself a run."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagster_backfills.engine.model import Query, Target, Write
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.errors import UserError
from dagster_backfills_tests.engine.running import UNITS, by_part, by_unit, fill, run, totals, units_of
from dagster_backfills_tests.engine.undoing import previewed, tables, undone


def total(outcome, asset="t/units"):
    counts = asdict(outcome.total(asset))
    return {name: value for name, value in counts.items() if value}


def disturb(conn):
    conn.execute(
        "insert into t.units values ('p001', 'p001-u0001', 7), ('p002', 'gone', 9), ('p002', 'p002-u0001', 1);"
        "insert into t.parts values ('p001', 77, 7)"
    )


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_a_run_is_undone_redone_and_undone_again(database_url, conn, size):
    keys = fill(conn, parts=2, units=3)
    disturb(conn)
    before = tables(conn)
    run(database_url, [by_unit, totals], keys, RunIdentity("one"), batch_units=size)
    after = tables(conn)
    report = previewed(database_url, "one", batch_units=size)
    assert tables(conn) == after
    outcome = undone(database_url, "one", name="back", batch_units=size)
    assert total(outcome) == {"inserted": 1, "updated": 1, "deleted": 4} == total(report)
    assert tables(conn) == before
    assert {e.change for e in report.examples} == {"inserted", "updated", "deleted"}
    assert total(undone(database_url, "back", name="forth")) == {"inserted": 4, "updated": 1, "deleted": 1}
    assert tables(conn) == after
    undone(database_url, "forth", name="again")
    assert tables(conn) == before
    assert conn.execute("select run_id, undoes, outcome from backfill.runs where undoes is not null order by 1"
                        ).fetchall() == [
        ("again", "forth", "succeeded"), ("back", "one", "succeeded"), ("forth", "back", "succeeded"),
    ]  # fmt: skip


def test_rows_changed_since_the_run_are_kept_and_shown(database_url, conn):
    keys = fill(conn, parts=1, units=4)
    disturb(conn)
    run(database_url, [by_unit], keys, RunIdentity("one"))
    conn.execute("update t.units set v = 500 where unit in ('p001-u0001', 'p001-u0002')")
    conn.execute("delete from t.units where unit = 'p001-u0003'")
    report = previewed(database_url, "one")
    assert total(report) == {"deleted": 1, "unchanged": 2}
    kept = {e.after["unit"]: e.before for e in report.examples if e.change == "kept"}
    assert kept == {"p001-u0001": {"v": 7, "part": "p001", "unit": "p001-u0001"}, "p001-u0002": None}
    assert total(undone(database_url, "one")) == total(report)
    assert [row[1:] for row in tables(conn)[0] if row[0] == "p001"] == [
        ("p001-u0001", 500),
        ("p001-u0002", 500),
    ]


def test_a_run_that_changed_nothing_can_be_undone_repeatedly(database_url, conn):
    keys = fill(conn, parts=1, units=0)
    run(database_url, [by_unit], keys, RunIdentity("one"))
    assert total(undone(database_url, "one", name="back")) == total(undone(database_url, "back")) == {}
    assert conn.execute("select count(*) from backfill.runs where outcome = 'succeeded'").fetchone() == (3,)


def test_only_the_given_partitions_are_undone(database_url, conn):
    keys = fill(conn, parts=2, units=2)
    run(database_url, [by_unit, totals], keys, RunIdentity("one"))
    undone(database_url, "one", ["p002"])
    assert [row[0] for row in tables(conn)[1]] == ["p001"]
    assert conn.execute("select asset, partition from backfill.undone order by 1").fetchall() == [
        ("t/parts", "p002"), ("t/units", "p002"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="did not write partition 'p003'"):
        undone(database_url, "one", ["p003"])


@pytest.mark.parametrize("size", [1, 1000])
def test_a_row_that_can_not_be_restored_fails_alone(database_url, conn, size):
    keys = fill(conn, parts=1, units=3)
    run(database_url, [by_unit], keys, RunIdentity("one"))
    conn.execute(
        "create table t.children (unit text references t.units); insert into t.children values ('p001-u0002')"
    )
    outcome = undone(database_url, "one", batch_units=size)
    assert [row[1] for row in tables(conn)[0]] == ["p001-u0002"]
    assert [(f.unit, f.sqlstate) for f in outcome.unit_failures] == [("p001-u0002", "23503")]


@pytest.mark.parametrize("alter, message", [
    ("add column w int", "now has w"),
    ("drop column v", "lacks v"),
    ("alter column v type bigint", "another type for v"),
    ("drop constraint units_pkey", "no longer its key"),
])  # fmt: skip
def test_a_table_altered_since_the_run_is_an_error_before_any_change(database_url, conn, alter, message):
    keys = fill(conn, parts=1, units=2)
    run(database_url, [by_unit, totals], keys, RunIdentity("one"))
    conn.execute(f"alter table t.units {alter}")
    before = tables(conn)
    with pytest.raises(UserError, match=f"altered since.*{message}"):
        undone(database_url, "one")
    assert tables(conn) == before
    assert conn.execute("select count(*) from backfill.runs").fetchone() == (1,)


def test_an_unknown_run_and_one_without_a_journal_are_rejected(database_url, conn):
    keys = fill(conn, parts=1, units=2)
    run(
        database_url,
        [Write(Target("t/units", "part", journal=False), Query(UNITS))],
        keys,
        RunIdentity("one"),
    )
    with pytest.raises(UserError, match=r"changed 2 rows of t/units that are not in the journal"):
        undone(database_url, "one")
    with pytest.raises(UserError, match="No run ID begins with 'two'"):
        undone(database_url, "two")


def test_an_undo_clears_its_own_stale_marks_and_not_later_ones(database_url, conn):
    keys = fill(conn, parts=2, units=4)
    run(database_url, [by_unit, totals], keys, RunIdentity("one"))
    conn.execute(
        "create function t.touch() returns trigger language plpgsql as $$ begin"
        " perform backfill.mark_stale('t/parts', array[old.part]), backfill.mark_stale('t/units', array[old.part]);"
        " return old; end $$;"
        "create trigger touch after delete on t.units for each row execute function t.touch()"
    )
    undone(database_url, "one", name="back", batch_units=2)
    assert conn.execute("select * from backfill.stale").fetchall() == []
    assert conn.execute("select count(*) from backfill.undone").fetchone() == (4,)
    undone(database_url, "back")
    assert conn.execute("select count(*) from backfill.undone").fetchone() == (0,)
    assert conn.execute("select count(*) from backfill.stale").fetchone() == (4,)
    undone(database_url, "one")
    run(database_url, [by_unit, totals], keys[:1])
    assert {row[0] for row in conn.execute("select partition from backfill.undone")} == {"p002"}


def test_generated_columns_are_restored(database_url, conn):
    conn.execute(
        "create schema t; create table t.rows (id bigint generated always as identity primary key, part text,"
        " unit text, v int, twice int generated always as (v * 2) stored, updated_at timestamptz default now(),"
        " note text default 'by hand', unique (part, unit));"
        "insert into t.rows (part, unit, v) values ('a', 'gone', 1), ('a', 'kept', 2), ('a', 'other', 3)"
    )
    before = conn.execute("select * from t.rows order by id").fetchall()
    query = "select 'a' as part, u as unit, v from (values ('kept', 2), ('other', 4), ('new', 5)) as n (u, v)"
    query += " where 'a' = any(%(partition_keys)s::text[])"
    for mode in ("upsert", "replace"):
        key = ["part", "unit"] if mode == "upsert" else None
        run(database_url, [Write(Target("t/rows", "part", mode=mode, key=key), Query(query))], ["a"],
            RunIdentity(mode))  # fmt: skip
        undone(database_url, mode)
        assert conn.execute("select * from t.rows order by id").fetchall() == before
    assert before


def test_a_row_that_moved_to_another_partition_is_moved_back(database_url, conn):
    keys = fill(conn, parts=2, units=2)
    conn.execute("insert into t.units values ('p001', 'p002-u0001', 9)")
    before = tables(conn)
    for size in (1, 1000):
        run(database_url, [by_unit], keys, RunIdentity(f"run {size}"), batch_units=size)
        undone(database_url, f"run {size}", batch_units=size)
        assert tables(conn) == before


def test_concurrent_and_repeated_undos_end_like_one(database_url, conn):
    keys = fill(conn, parts=10, units=10)
    disturb(conn)
    before = tables(conn)
    run(database_url, [by_unit, totals], keys, RunIdentity("one"), batch_units=10)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda name: undone(database_url, "one", name=name, batch_units=7), ("a", "b")))
    assert tables(conn) == before
    assert sum(outcome.total("t/units").deleted for outcome in both) == 98
    assert total(undone(database_url, "one")) == {}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("source"), st.integers(0, 8), st.integers(1, 3)),
        st.tuples(st.just("lost"), st.integers(0, 8), st.just(0)),
        st.tuples(st.just("run"), st.sampled_from(["upsert", "insert_missing", "replace"]), st.sampled_from([1, 99])),
        st.tuples(st.just("edit"), st.integers(0, 8), st.integers(4, 6)),
        st.tuples(st.just("delete"), st.integers(0, 8), st.just(0)),
        st.tuples(st.just("undo"), st.integers(0, 5), st.sampled_from([1, 99])),
    ),
    min_size=2, max_size=14,
)  # fmt: skip


def rows(conn):
    return dict(conn.execute("select unit, v from t.units").fetchall())


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_after_runs_edits_and_undos_every_row_matches_a_model(database_url, conn, steps):
    """The model keeps each run's changes by key. An undo reverts those whose row is still as the run left it."""
    conn.execute("drop schema if exists t cascade")
    conn.execute("truncate backfill.runs, backfill.failures, backfill.journal cascade")
    fill(conn, parts=0, units=0)
    done = []
    for step, what, number in steps:
        unit = f"u{what}"
        if step == "source":
            conn.execute("delete from t.source where unit = %s", [unit])
            conn.execute("insert into t.source values ('p', %s, %s)", [unit, number])
        elif step == "lost":
            conn.execute("delete from t.source where unit = %s", [unit])
        elif step == "edit":
            conn.execute("delete from t.units where unit = %s", [unit])
            conn.execute("insert into t.units values ('p', %s, %s)", [unit, number])
        elif step == "delete":
            conn.execute("delete from t.units where unit = %s", [unit])
        elif step == "run":
            before = rows(conn)
            units = by_unit.units if what == "upsert" else None
            write = Write(Target("t/units", "part", unit="unit", mode=what), Query(UNITS), units=units)
            run(database_url, [write], ["p"], RunIdentity(f"r{len(done)}"), batch_units=number)
            done.append((before, rows(conn), what == "replace"))
        elif done:
            number_of = what % len(done)
            was, left, whole = done[number_of]
            before, expected, kept = rows(conn), rows(conn), 0
            for key in {*was, *left}:
                if was.get(key) == left.get(key) or before.get(key) == was.get(key):
                    continue
                if before.get(key) != left.get(key):
                    kept += 1
                elif key in was:
                    expected[key] = was[key]
                else:
                    del expected[key]
            if whole:  # a row that was replaced by itself counts where it was changed since
                kept += sum(was[k] == left.get(k) != before.get(k) for k in was)
            outcome = undone(database_url, f"r{number_of}", name=f"r{len(done)}", batch_units=number)
            assert rows(conn) == expected
            assert outcome.total("t/units").unchanged == kept
            done.append((before, expected, False))


@pytest.mark.parametrize("write", [by_unit, by_part], ids=["by unit", "by part"])
@pytest.mark.parametrize("size", [1, 1000])
def test_a_new_row_may_have_the_unique_value_of_a_row_that_the_batch_deletes_or_updates(
    database_url, conn, write, size
):
    keys = fill(conn, parts=1, units=3)
    run(database_url, [write], keys)
    conn.execute("create unique index on t.units (v)")
    before = tables(conn)
    conn.execute(
        "update t.source set unit = 'p001-u0000' where unit = 'p001-u0001';"
        "update t.source set v = '500' where unit = 'p001-u0002';"
        "insert into t.source values ('p001', 'p001-u0004', '2')"
    )
    outcome = run(database_url, [write], keys, RunIdentity("one"))
    assert (outcome.failed, outcome.unit_failures) == ({}, [])
    assert total(outcome) == {"inserted": 2, "updated": 1, "deleted": 1, "unchanged": 1}
    assert units_of(conn) == {"p001-u0000": 1, "p001-u0002": 500, "p001-u0003": 3, "p001-u0004": 2}
    undone(database_url, "one", batch_units=size)
    assert tables(conn) == before
