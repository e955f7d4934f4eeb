"""Stale marks, overwrites and locks with two concurrent connections."""

import psycopg
import pytest

from dagster_backfills_tests.engine.running import (
    InThread,
    by_part,
    by_unit,
    computed,
    fill,
    run,
    totals,
    units_of,
    wait_until_blocked,
)


def mark(conn, part, asset="t/units"):
    conn.execute("select backfill.mark_stale(%s, array[%s])", [asset, part])


def stale(conn):
    return conn.execute("select asset, partition, changes from backfill.stale order by 1, 2").fetchall()


class TestMarks:
    def test_a_mark_made_before_the_run_is_cleared(self, database_url, conn):
        keys = fill(conn, parts=2, units=2)
        for part in (*keys, "p001", "elsewhere"):
            mark(conn, part)
            mark(conn, part, "t/parts")
        assert ("t/units", "p001", 2) in stale(conn)
        run(database_url, [by_unit, totals], keys)
        assert stale(conn) == [("t/parts", "elsewhere", 1), ("t/units", "elsewhere", 1)]

    def test_a_mark_made_while_the_batch_computes_stays(self, database_url, conn):
        keys = fill(conn, parts=2, units=2)
        for part in keys:
            mark(conn, part)
        run(database_url, [computed(lambda c, k, u: mark(conn, "p002"))], keys)
        assert stale(conn) == [("t/units", "p002", 1)]

    def test_a_mark_whose_transaction_is_still_open_when_the_batch_computes_stays(self, database_url, conn):
        keys = fill(conn, parts=1, units=2)
        with psycopg.connect(database_url) as other:
            mark(other, "p001")
            run(database_url, [computed(lambda c, k, u: other.commit())], keys)
        assert stale(conn) == [("t/units", "p001", 1)]
        run(database_url, [by_unit], keys)
        assert stale(conn) == []

    def test_a_mark_made_during_any_slice_of_a_partition_stays(self, database_url, conn):
        keys = fill(conn, parts=1, units=6)
        mark(conn, "p001")
        slices = []

        def during(connection, part_keys, units):
            slices.append(units)
            if len(slices) == 2:
                mark(conn, "p001")

        run(database_url, [computed(during), totals], keys, batch_units=2)
        assert len(slices) == 3
        assert stale(conn) == [("t/units", "p001", 1)]

    def test_a_partition_that_fails_keeps_its_mark(self, database_url, conn):
        keys = fill(conn, parts=3, units=2)
        for part in keys:
            mark(conn, part)
        conn.execute("update t.source set v = '5000' where part = 'p002'")
        run(database_url, [by_part], keys)
        assert stale(conn) == [("t/units", "p002", 1)]

    def test_marking_never_waits_for_a_run(self, database_url, conn):
        keys = fill(conn, parts=1, units=2)
        mark(conn, "p001")
        conn.execute("set lock_timeout = '2s'")
        run(database_url, [computed(lambda c, k, u: mark(conn, "p001"))], keys)
        assert stale(conn) == [("t/units", "p001", 1)]


class TestNewerRows:
    """The run waits for a row that another transaction is writing. That commits, and the run continues."""

    @pytest.fixture
    def other(self, database_url):
        with psycopg.connect(database_url) as connection:
            yield connection

    def start(self, database_url, conn, writes=(by_unit,)):
        thread = InThread(database_url, list(writes), ["p001"], lock_timeout=60)
        wait_until_blocked(conn)
        return thread

    def test_a_concurrent_update_is_not_overwritten(self, database_url, conn, other):
        fill(conn, parts=1, units=3)
        conn.execute("insert into t.units select part, unit, 0 from t.source")
        other.execute("update t.units set v = 777 where unit = 'p001-u0002'")
        thread = self.start(database_url, conn)
        other.commit()
        outcome = thread.result()
        assert units_of(conn) == {"p001-u0001": 1, "p001-u0002": 777, "p001-u0003": 3}
        assert outcome.of("t/units", "p001").updated == 2

    def test_a_concurrent_update_in_a_savepoint_is_not_overwritten(self, database_url, conn, other):
        fill(conn, parts=1, units=3)
        conn.execute("insert into t.units select part, unit, 0 from t.source")
        with other.transaction():
            with other.transaction():
                other.execute("update t.units set v = 777 where unit = 'p001-u0002'")
            conn.execute("create table t.later ()")  # a transaction that ends after the savepoint began
            thread = self.start(database_url, conn)
        thread.result()
        assert units_of(conn)["p001-u0002"] == 777

    def test_a_concurrent_update_that_is_rolled_back_is_ignored(self, database_url, conn, other):
        fill(conn, parts=1, units=3)
        conn.execute("insert into t.units select part, unit, 0 from t.source")
        other.execute("update t.units set v = 777 where unit = 'p001-u0002'")
        thread = self.start(database_url, conn)
        other.rollback()
        thread.result()
        assert sorted(units_of(conn).values()) == [1, 2, 3]

    def test_a_concurrently_inserted_row_is_not_overwritten(self, database_url, conn, other):
        fill(conn, parts=1, units=3)
        other.execute("insert into t.units values ('p001', 'p001-u0002', 777)")
        thread = self.start(database_url, conn)
        other.commit()
        outcome = thread.result()
        assert units_of(conn)["p001-u0002"] == 777
        assert outcome.of("t/units", "p001").inserted == 2 and not outcome.unit_failures

    def test_a_concurrently_updated_row_is_not_deleted(self, database_url, conn, other):
        fill(conn, parts=1, units=1)
        conn.execute("insert into t.units values ('p001', 'left', 1), ('p001', 'came back', 1)")
        other.execute("update t.units set v = 777 where unit = 'came back'")
        thread = self.start(database_url, conn)
        other.commit()
        thread.result()
        assert units_of(conn) == {"p001-u0001": 1, "came back": 777}

    def test_a_concurrently_deleted_row_is_not_an_error(self, database_url, conn, other):
        fill(conn, parts=1, units=3)
        conn.execute("insert into t.units select part, unit, 0 from t.source")
        other.execute("delete from t.units where unit = 'p001-u0002'")
        thread = self.start(database_url, conn)
        other.commit()
        thread.result()
        assert units_of(conn) == {"p001-u0001": 1, "p001-u0003": 3}

    def test_old_and_frozen_rows_are_overwritten(self, database_url, conn):
        fill(conn, parts=1, units=3)
        conn.execute("insert into t.units select part, unit, 0 from t.source")
        conn.execute("vacuum freeze t.units")
        run(database_url, [by_unit], ["p001"])
        assert sorted(units_of(conn).values()) == [1, 2, 3]


class TestLocks:
    def test_a_partition_has_one_writer_at_a_time_without_a_timeout(self, database_url, conn):
        fill(conn, parts=1, units=2)
        with psycopg.connect(database_url) as other:
            other.execute("select backfill.lock_partitions('t/units', array['p001'])")
            thread = InThread(database_url, [by_unit], ["p001"], lock_timeout=0.05)
            wait_until_blocked(conn)
            assert units_of(conn) == {}
            other.commit()
        assert thread.result().of("t/units", "p001").inserted == 2

    def test_other_partitions_are_not_blocked(self, database_url, conn):
        fill(conn, parts=2, units=2)
        with psycopg.connect(database_url) as other:
            other.execute("select backfill.lock_partitions('t/units', array['p001'])")
            assert run(database_url, [by_unit], ["p002"]).done == ["p002"]

    def test_two_concurrent_runs_end_with_the_rows_of_one(self, database_url, conn):
        keys = fill(conn, parts=30, units=20)
        threads = [
            InThread(database_url, [by_unit, totals], keys[first:last], batch_units=50)
            for first, last in ((0, 20), (10, 30), (0, 30))
        ]
        for thread in threads:
            outcome = thread.result()
            assert not outcome.failed and not outcome.unit_failures
        assert len(units_of(conn)) == 600
        assert conn.execute("select count(*), min(total), max(total) from t.parts").fetchone() == (30, 20, 20)

    def test_a_deadlock_is_retried(self, database_url, conn):
        fill(conn, parts=1, units=2)
        conn.execute("insert into t.units select part, unit, 0 from t.source")
        with psycopg.connect(database_url) as other:
            other.execute("set deadlock_timeout = '600s'")  # the run finds the deadlock, and gives way
            other.execute("update t.units set v = 8 where unit = 'p001-u0002'")
            thread = InThread(database_url, [by_unit, totals], ["p001"], lock_timeout=60)
            wait_until_blocked(conn)
            # The run holds the first row by now, and waits for the second.
            other.execute("update t.units set v = 9 where unit = 'p001-u0001'")
            other.commit()
        outcome = thread.result()
        assert outcome.done == ["p001"] and not outcome.failed and not outcome.unit_failures
        assert outcome.attempts > 1
        assert units_of(conn) == {"p001-u0001": 1, "p001-u0002": 2}
