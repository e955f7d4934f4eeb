"""Failures are isolated to units or partitions, for every kind of database error."""

from contextlib import contextmanager

import psycopg
import pytest

from dagster_backfills.engine.model import Query, Target, Write
from dagster_backfills.engine.outcome import Counts
from dagster_backfills.errors import UserError
from dagster_backfills_tests.engine.running import (
    by_part,
    by_unit,
    computed,
    fill,
    ledger_of,
    run,
    totals,
    units_of,
)

BAD = "p003-u0004"


@contextmanager
def a_constraint(conn, url):
    conn.execute("update t.source set v = '5000' where unit = %s", [BAD])
    yield "violates check constraint"
    conn.execute("update t.source set v = '5' where unit = %s", [BAD])


@contextmanager
def a_cast(conn, url):
    conn.execute("update t.source set v = 'five' where unit = %s", [BAD])
    yield 'invalid input syntax for type integer: "five"'
    conn.execute("update t.source set v = '5' where unit = %s", [BAD])


@contextmanager
def a_trigger(conn, url, does="raise exception 'not this one: %', new.unit"):
    conn.execute(
        f"create function t.refuse() returns trigger language plpgsql as $$ begin {does}; return new; end $$"
    )
    conn.execute(
        "create trigger refuse before insert or update on t.units for each row"
        f" when (new.unit = '{BAD}') execute function t.refuse()"
    )
    yield f"not this one: {BAD}"
    conn.execute("drop trigger refuse on t.units")


@contextmanager
def a_statement_timeout(conn, url):
    with a_trigger(conn, url, "perform pg_sleep(30)"):
        yield "canceling statement due to statement timeout"


@contextmanager
def a_lock(conn, url):
    conn.execute("insert into t.units values ('p003', %s, 99)", [BAD])
    with psycopg.connect(url) as other:
        other.execute("select from t.units where unit = %s for update", [BAD])
        yield "canceling statement due to lock timeout"
        other.rollback()


CAUSES = [a_constraint, a_cast, a_trigger, a_statement_timeout, a_lock]
TIMEOUTS = {"statement_timeout": 2.0, "lock_timeout": 0.1}


@pytest.mark.parametrize("cause", CAUSES)
def test_only_a_bad_unit_is_in_the_ledger_and_its_partition_is_done(database_url, conn, cause):
    keys = fill(conn, parts=5, units=8)
    settings = TIMEOUTS | ({"statement_timeout": 0.2} if cause is a_statement_timeout else {})
    with cause(conn, database_url) as message:
        outcome = run(database_url, [by_unit, totals], keys, **settings)
        assert sorted(outcome.done) == keys and not outcome.failed
        [entry] = ledger_of(conn)
        assert entry[:3] == ("t/units", "p003", BAD) and message in entry[4] and entry[5] == 1
        written = units_of(conn)
        assert written.get(BAD) in (None, 99)
        assert len(written.keys() - {BAD}) == 39
        assert outcome.of("t/units", "p003").failed_units == 1
        run(database_url, [by_unit, totals], ["p003"], **settings)
        assert ledger_of(conn)[0][5] == 2
    outcome = run(database_url, [by_unit, totals], ["p003"], **TIMEOUTS)
    assert ledger_of(conn) == [] and BAD in units_of(conn)
    assert outcome.of("t/parts", "p003").updated == 1


@pytest.mark.parametrize("cause", CAUSES)
def test_only_a_bad_partition_fails_and_nothing_of_it_is_written(database_url, conn, cause):
    keys = fill(conn, parts=5, units=8)
    settings = TIMEOUTS | ({"statement_timeout": 0.2} if cause is a_statement_timeout else {})
    with cause(conn, database_url) as message:
        outcome = run(database_url, [by_part, totals], keys, **settings)
        assert list(outcome.failed) == ["p003"] and message in outcome.failed["p003"].message
        assert sorted(outcome.done) == [key for key in keys if key != "p003"]
        [entry] = ledger_of(conn)
        assert entry[:3] == ("t/units", "p003", None) and message in entry[4]
        found = conn.execute("select distinct part from t.units where v <> 99 order by 1").fetchall()
        assert [part for (part,) in found] == [key for key in keys if key != "p003"]
        assert conn.execute("select count(*) from t.parts").fetchone() == (4,)
    run(database_url, [by_part, totals], ["p003"], **TIMEOUTS)
    assert ledger_of(conn) == [] and len(units_of(conn)) == 40


def test_a_failure_of_the_second_table_rolls_back_the_first_one(database_url, conn):
    keys = fill(conn, parts=4, units=3)
    conn.execute("update t.source set v = '-100' where part = 'p002'")
    outcome = run(database_url, [by_part, totals], keys)
    assert list(outcome.failed) == ["p002"] and outcome.failed["p002"].asset == "t/parts"
    assert conn.execute("select count(*) from t.units where part = 'p002'").fetchone() == (0,)
    assert outcome.counts["t/units"].keys() == outcome.counts["t/parts"].keys() == {"p001", "p003", "p004"}
    assert outcome.intact == {}


def test_an_unchanged_first_table_counts_as_intact_when_the_second_one_fails(database_url, conn):
    keys = fill(conn, parts=4, units=3)
    run(database_url, [by_part], ["p002"])
    conn.execute("alter table t.parts add check (part <> 'p002')")
    outcome = run(database_url, [by_part, totals], keys)
    assert list(outcome.failed) == ["p002"]
    assert outcome.intact == {"t/units": {"p002": Counts(unchanged=3)}}


def test_a_sliced_first_table_counts_as_intact_when_the_second_one_fails(database_url, conn):
    keys = fill(conn, parts=1, units=9)
    conn.execute("update t.source set v = '5000' where unit = 'p001-u0004'")
    conn.execute("alter table t.parts add check (part <> 'p001')")
    outcome = run(database_url, [by_unit, totals], keys, batch_units=3)
    assert outcome.failed["p001"].asset == "t/parts" and len(units_of(conn)) == 8
    assert outcome.intact == {"t/units": {"p001": Counts(inserted=8, failed_units=1)}}


def test_isolating_a_bad_partition_takes_two_attempts_per_halving(database_url, conn):
    keys = fill(conn, parts=64, units=1)
    conn.execute("update t.source set v = '5000' where part = 'p037'")
    outcome = run(database_url, [by_part], keys)
    assert outcome.attempts == 1 + 2 * 6
    assert outcome.batches == 6
    assert conn.execute("select count(*) from backfill.batches").fetchone() == (6,)


def test_isolating_a_bad_unit_takes_two_attempts_per_halving(database_url, conn):
    keys = fill(conn, parts=1, units=64)
    conn.execute("update t.source set v = '5000' where unit = 'p001-u0037'")
    outcome = run(database_url, [by_unit, totals], keys)
    # The partition, its units in one slice, the halvings, and the tables that close the partition.
    assert outcome.attempts == 1 + 1 + 2 * 6 + 1
    assert outcome.of("t/units", "p001").inserted == 63


def test_several_bad_units_are_each_named(database_url, conn):
    keys = fill(conn, parts=3, units=20)
    bad = ["p001-u0001", "p001-u0020", "p003-u0007"]
    conn.execute("update t.source set v = '5000' where unit = any(%s)", [bad])
    outcome = run(database_url, [by_unit, totals], keys, batch_units=16)
    assert [f.unit for f in outcome.unit_failures] == bad
    assert len(units_of(conn)) == 57
    assert dict(conn.execute("select part, total from t.parts").fetchall()) == {
        "p001": 18,
        "p002": 20,
        "p003": 19,
    }


def test_a_bad_unit_keeps_its_existing_row(database_url, conn):
    keys = fill(conn, parts=1, units=5)
    run(database_url, [by_unit], keys)
    conn.execute("update t.source set v = case when unit = 'p001-u0003' then '5000' else '7' end")
    run(database_url, [by_unit], keys)
    assert sorted(units_of(conn).values()) == [3, 7, 7, 7, 7]


def test_the_failure_of_a_unit_that_is_no_longer_due_is_resolved(database_url, conn):
    keys = fill(conn, parts=1, units=5)
    conn.execute("update t.source set v = '5000' where unit in ('p001-u0002', 'p001-u0003')")
    run(database_url, [by_unit, totals], keys)
    assert len(ledger_of(conn)) == 2
    conn.execute("delete from t.source where unit = 'p001-u0002'")
    run(database_url, [by_unit, totals], keys)
    assert [entry[2] for entry in ledger_of(conn)] == ["p001-u0003"]


def test_a_large_partition_is_written_in_slices_that_commit_separately(database_url, conn):
    keys = fill(conn, parts=2, units=50)
    conn.execute("insert into t.units values ('p001', 'p001-gone', 1), ('p002', 'p002-gone', 1)")
    outcome = run(database_url, [by_unit, totals], keys, batch_units=20)
    slices = conn.execute(
        "select units from backfill.batches where units_upto is not null and partitions = '{p001}'"
        " order by committed_at"
    ).fetchall()
    assert slices == [(20,), (20,), (11,)]
    assert outcome.of("t/units", "p001").inserted == 50 and outcome.of("t/units", "p001").deleted == 1
    assert dict(conn.execute("select part, total from t.parts").fetchall()) == {"p001": 50, "p002": 50}


@pytest.mark.parametrize(
    "error", [ValueError("a bad row"), KeyError("unknown category"), ZeroDivisionError()]
)
def test_a_python_error_on_one_unit_fails_only_that_unit(database_url, conn, error):
    def rule(connection, part_keys, units):
        if units is None or BAD in units:
            raise error

    keys = fill(conn, parts=4, units=6)
    outcome = run(database_url, [computed(lambda c, k, u: rule(c, k, u) if "p003" in k else None)], keys)
    assert [f.unit for f in outcome.unit_failures] == [BAD] and not outcome.failed
    assert len(units_of(conn)) == 23


def test_when_everything_fails_every_partition_is_in_the_ledger(database_url, conn):
    keys = fill(conn, parts=4, units=2)
    conn.execute("update t.source set v = '5000'")
    outcome = run(database_url, [by_part], keys)
    assert list(outcome.failed) == keys and outcome.done == []
    assert [entry[1] for entry in ledger_of(conn)] == keys


def test_an_error_that_every_batch_would_meet_stops_the_run(database_url, conn):
    keys = fill(conn, parts=4, units=2)
    nowhere = computed(lambda connection, part_keys, units: connection.execute("select from t.nowhere"))
    with pytest.raises(psycopg.errors.UndefinedTable, match="nowhere"):
        run(database_url, [nowhere], keys)
    assert ledger_of(conn) == []
    assert conn.execute("select outcome from backfill.runs").fetchone() == ("failed",)


def test_a_query_that_returns_another_partition_stops_the_run(database_url, conn):
    keys = fill(conn, parts=2, units=2)
    stray = Write(Target("t/units", "part"), Query("select 'p999' as part, 'u' as unit, 1 as v"))
    with pytest.raises(UserError, match="'p999'"):
        run(database_url, [stray], keys)


@pytest.mark.parametrize(
    "key",
    [
        "a,b",
        "it's",
        '"quoted"',
        "100%",
        "%(x)s",
        "a/b",
        "back\\slash",
        "two  spaces ",
        "Łódź 東京 🚲",
        "{}",
        "k" * 500,
    ],
)
def test_partition_and_unit_keys_may_contain_any_characters(database_url, conn, key):
    fill(conn, parts=1, units=1)
    conn.execute("insert into t.source values (%s, %s, '1'), (%s, %s, '5000')", [key, key, key, f"bad {key}"])
    outcome = run(database_url, [by_unit, totals], ["p001", key], batch_units=1)
    assert sorted(outcome.done) == sorted(["p001", key])
    assert ledger_of(conn)[0][1:3] == (key, f"bad {key}")
    assert conn.execute("select part from t.units where unit = %s", [key]).fetchone() == (key,)
    conn.execute("update t.source set v = '7'")
    again = run(database_url, [by_unit, totals], [key])
    assert ledger_of(conn) == [] and again.of("t/units", key).inserted == 1


def test_all_units_are_written_whatever_the_databases_collation(database_url, conn):
    """Slices are ordered by the bytes of the keys, whatever the database's collation."""
    fill(conn, parts=1, units=1)
    keys = ["Zebra", "apple", "Äpfel", "_x", "1", "z", "É", "e", "E"]
    for key in keys:
        conn.execute("insert into t.source values ('odd', %s, '1')", [key])
    run(database_url, [by_unit], ["odd"], batch_units=2)
    assert {unit for unit in units_of(conn)} == set(keys)
