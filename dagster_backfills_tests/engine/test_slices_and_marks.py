"""Units that are added while a partition is written in slices: each ends with its row or a stale mark."""

import threading
import time

import pandas as pd
import psycopg
import pytest
from psycopg import sql

from dagster_backfills.engine import ledger
from dagster_backfills.engine.model import Compute, Frame, Query, Target, Write
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.table.address import ByDimensions
from dagster_backfills_tests.engine.running import (
    UNITS,
    InThread,
    by_unit,
    computed,
    fill,
    run,
    totals,
    units_of,
    wait_until_blocked,
)

# As an application's trigger does: the unit and the marks of what it makes stale, in one transaction.
ADD = """
with added as (insert into t.source values ('p001', %(unit)s, '7'))
select backfill.mark_stale(asset, array['p001']) from unnest(array['t/units', 't/parts', 't/copies']) as asset
"""
LOCK = "select backfill.lock_partitions('t/units', array['p001'])"


def add(conn, *units):
    for unit in units:
        conn.execute(ADD, {"unit": unit})


def around(number):
    """Adds units before, among and after the existing ones, to cover every position relative to slices."""
    return [f"p001-a{number}", f"p001-u0003-{number}", f"p001-z{number}"]


def assert_none_is_lost(conn, added, tables=("units",)):
    """Asserts that every added unit has its row in each table, or its partition is stale."""
    due = {row[0] for row in conn.execute("select asset from backfill.stale where partition = 'p001'")}
    for table in tables:
        there = {
            row[0] for row in conn.execute(sql.SQL("select unit from t.{}").format(sql.Identifier(table)))
        }
        assert not set(added) - there or f"t/{table}" in due, (table, set(added) - there)


@pytest.fixture
def holder(database_url):
    """Another run's transaction that holds the partition's lock."""
    with psycopg.connect(database_url) as other:
        other.execute(LOCK)
        yield other


def test_units_added_while_the_listed_partition_waits_for_its_lock(database_url, conn, holder):
    keys = fill(conn, parts=1, units=10)
    thread = InThread(database_url, [by_unit, totals], keys, batch_units=3)
    wait_until_blocked(conn)
    add(conn, *around(1))
    holder.commit()
    thread.result()
    assert not {*around(1)} <= units_of(conn).keys()
    assert_none_is_lost(conn, around(1))
    run(database_url, [by_unit, totals], keys, batch_units=3)
    assert {*around(1)} <= units_of(conn).keys()
    assert conn.execute("select count(*) from backfill.stale_marks where asset <> 't/copies'").fetchone() == (
        0,
    )


@pytest.mark.parametrize("width", [0, 2])
def test_units_added_while_slices_are_written(database_url, conn, width):
    keys = fill(conn, parts=1, units=20)
    added = []

    def during(connection, part_keys, units):
        with psycopg.connect(database_url, autocommit=True) as other:
            added.extend(around(len(added)))
            add(other, *added[-3:])

    write = computed(during)
    write = Write(write.target, Compute(write.source.function, prefetch=width), units=write.units)
    run(database_url, [write], keys, batch_units=3)
    assert len(added) > 15
    assert_none_is_lost(conn, added)


def test_units_added_while_a_small_partition_with_a_bad_unit_is_bisected(database_url, conn):
    """Another run gets the lock between the attempt of the whole partition and its first slice."""
    keys = fill(conn, parts=1, units=6)
    conn.execute("update t.source set v = '5000' where unit = 'p001-u0005'")
    waiting = []

    def another_run_comes(connection, part_keys, units):
        if units is None:
            waiting.append(InLock(database_url))
            wait_until_blocked(conn)

    thread = InThread(database_url, [computed(another_run_comes), totals], keys)
    wait_for(lambda: waiting and waiting[0].held.wait(60))
    wait_until_blocked(conn)
    add(conn, *around(1))
    waiting[0].release.set()
    thread.result()
    assert_none_is_lost(conn, around(1))


class InLock:
    """A thread that takes the partition's lock as soon as possible and holds it until released."""

    def __init__(self, url):
        self.held, self.release = threading.Event(), threading.Event()
        threading.Thread(target=self._hold, args=(url,), daemon=True).start()

    def _hold(self, url):
        with psycopg.connect(url) as other:
            other.execute(LOCK)
            self.held.set()
            self.release.wait(60)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_units_added_before_a_run_resumes(database_url, conn):
    keys = fill(conn, parts=1, units=10)

    class Killed(BaseException):
        pass

    def killed(connection, part_keys, units):
        if units[0] > "p001-u0006":
            raise Killed

    with pytest.raises(Killed):
        run(database_url, [computed(killed), totals], keys, RunIdentity("one"), batch_units=3)
    add(conn, *around(1))
    run(
        database_url,
        [by_unit, totals],
        keys,
        RunIdentity("two", root_run_id="one", resumes=True),
        batch_units=3,
    )
    assert "p001-a1" not in units_of(conn)
    assert_none_is_lost(conn, around(1))


def test_units_added_before_the_units_are_listed_again_on_a_new_connection(database_url, conn):
    keys = fill(conn, parts=1, units=12)
    calls = []

    def cut_once(connection, part_keys, units):
        calls.append(units)
        if len(calls) == 3:
            add(conn, *around(1))
            conn.execute("select pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])

    run(database_url, [computed(cut_once), totals], keys, batch_units=3, retry_seconds=0.001)
    assert "p001-a1" not in units_of(conn) and "p001-z1" in units_of(conn)
    assert_none_is_lost(conn, around(1))


def test_units_of_several_tables_with_different_units(database_url, conn, holder):
    keys = fill(conn, parts=1, units=10)
    conn.execute("create table t.copies (part text, unit text primary key, v int)")
    odd = Query(
        "select part as partition, unit from t.source where part = any(%(partition_keys)s) and mod(v::int, 2) = 1"
    )
    copies = Write(Target("t/copies", "part", unit="unit"), Query(UNITS), units=odd)
    thread = InThread(database_url, [by_unit, copies, totals], keys, batch_units=3)
    wait_until_blocked(conn)
    add(conn, *around(1))
    holder.commit()
    thread.result()
    assert_none_is_lost(conn, around(1), ("units", "copies"))


def test_a_frames_units_are_counted_if_partitions_have_several_dimensions(database_url, conn):
    conn.execute("create schema t; create table t.cells (region text, day date, unit text primary key)")
    columns, key = {"region": "region", "day": "day"}, "2026-01-01|north"
    address = ByDimensions(
        columns, {"region": "text", "day": "date"}, {key: {"region": "north", "day": "2026-01-01"}}
    )
    rows = pd.DataFrame({"region": "north", "day": "2026-01-01", "unit": list("abcde")})
    write = Write(Target("t/cells", columns, unit="unit"), Frame(rows), address=address)
    run(database_url, [write], [key], batch_units=2)
    sizes = "select units from backfill.batches where units_upto is not null order by units_upto"
    assert conn.execute(sizes).fetchall() == [(2,), (2,), (1,)]


def test_the_oldest_snapshot_of_several_attempts_counts(conn):
    """Snapshots compare as numbers: as text '1000:…' would sort before '999:…'."""
    run_of = RunIdentity("two", root_run_id="one", resumes=True)
    for name, snapshot, upto in (("one", "999:999:", "a"), ("two", "1000:1000:", "b")):
        identity = RunIdentity(name, root_run_id="one")
        ledger.start(conn, identity, ["t/units"], 1, None)
        conn.execute(
            "insert into backfill.batches (batch_id, asset, run_id, partitions, units_upto, snapshot, seconds)"
            " values (gen_random_uuid(), 't/units', %s, '{p001}', %s, %s::pg_snapshot, 1)",
            [name, upto, snapshot],
        )
    prior = ledger.prior_work(conn, run_of, ["t/units"])
    assert prior.reached == {"p001": ("b", "999:999:")}


class TestMarksOfTheRunsOwnWrites:
    """An application's trigger marks a dependent table stale, whoever writes."""

    @pytest.fixture
    def keys(self, conn):
        keys = fill(conn, parts=2, units=10)
        conn.execute(
            "create function t.mark() returns trigger language plpgsql as $$ begin"
            " perform backfill.mark_stale(tg_argv[0], array(select distinct part from new_rows)); return null; end $$;"
            " create trigger mark after insert on t.units referencing new table as new_rows"
            " for each statement execute function t.mark('t/parts')"
        )
        return keys

    def stale(self, conn):
        return conn.execute("select asset, partition from backfill.stale order by 1, 2").fetchall()

    def test_are_cleared_if_the_same_batch_computes_the_dependent_table(self, database_url, conn, keys):
        run(database_url, [by_unit, totals], keys)
        assert self.stale(conn) == []

    def test_stay_if_it_does_not(self, database_url, conn, keys):
        run(database_url, [by_unit], keys)
        assert self.stale(conn) == [("t/parts", "p001"), ("t/parts", "p002")]

    def test_stay_if_it_has_computed_the_dependent_table_before(self, database_url, conn, keys):
        run(database_url, [totals, by_unit], keys)
        assert self.stale(conn) == [("t/parts", "p001"), ("t/parts", "p002")]

    def test_stay_when_the_run_dies_after_some_slices(self, database_url, conn, keys):
        class Killed(BaseException):
            pass

        def killed(connection, part_keys, units):
            if units[0] > "p001-u0006":
                raise Killed

        with pytest.raises(Killed):
            run(database_url, [computed(killed), totals], ["p001"], batch_units=3)
        assert self.stale(conn) == [("t/parts", "p001")]
