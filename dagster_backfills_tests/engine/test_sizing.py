"""Batch sizes, error classes, and pauses for an overloaded database."""

import threading

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors

from dagster_backfills.engine.failures import ErrorClass, classify, describe
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.sizing import BatchSize, batches
from dagster_backfills.engine.throttle import Throttle
from dagster_backfills.errors import UserError
from dagster_backfills_tests.engine.running import by_unit, fill, run, wait_until_blocked


def conn_waits(url):
    with psycopg.connect(url) as conn:
        conn.execute("select pg_advisory_lock(1)")


def size(**settings):
    return BatchSize(
        EngineSettings(**{"batch_units": 100, "max_batch_units": 1000, "min_batch_units": 2} | settings)
    )


class TestSize:
    def test_a_fast_batch_grows_the_size_by_half(self):
        units = size()
        units.took(100, 0.2)
        assert units.units == 151

    def test_a_slow_batch_shrinks_the_size_to_the_target_at_once(self):
        units = size()
        units.took(100, 10.0)
        assert units.units == 10

    def test_a_batch_near_the_target_leaves_the_size(self):
        units = size()
        units.took(100, 0.9)
        units.took(100, 1.9)
        assert units.units == 100

    def test_a_batch_far_below_the_size_does_not_grow_it(self):
        units = size()
        units.took(3, 0.01)
        assert units.units == 100

    def test_without_a_target_the_size_stays(self):
        units = size(target_seconds=0)
        units.took(100, 60)
        assert units.units == 100

    @given(st.lists(st.tuples(st.integers(1, 2000), st.floats(0.0001, 500)) | st.none(), max_size=60))
    def test_the_size_stays_between_minimum_and_maximum(self, history):
        units = size()
        for batch in history:
            units.shrink() if batch is None else units.took(*batch)
            assert 2 <= units.units <= 1000

    @given(st.lists(st.integers(0, 300), max_size=80), st.integers(1, 400))
    def test_batches_keep_the_order_of_keys_and_do_not_exceed_the_size(self, weights, units):
        keys = [str(n) for n in range(len(weights))]
        by_key = dict(zip(keys, weights, strict=True))
        cut = list(batches(keys, by_key, size(batch_units=units, max_batch_units=400, min_batch_units=1)))
        assert [key for batch in cut for key in batch] == keys
        for batch in cut:
            assert len(batch) == 1 or sum(max(by_key[key], 1) for key in batch) <= units


class TestClasses:
    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (errors.UniqueViolation("x"), ErrorClass.DATA),
            (errors.RaiseException("x"), ErrorClass.DATA),
            (errors.QueryCanceled("x"), ErrorClass.DATA),
            (errors.LockNotAvailable("x"), ErrorClass.DATA),
            (errors.DivisionByZero("x"), ErrorClass.DATA),
            (errors.SerializationFailure("x"), ErrorClass.CONFLICT),
            (errors.DeadlockDetected("x"), ErrorClass.CONFLICT),
            (errors.AdminShutdown("x"), ErrorClass.CONNECTION),
            (errors.CannotConnectNow("x"), ErrorClass.CONNECTION),
            (errors.TooManyConnections("x"), ErrorClass.CONNECTION),
            (psycopg.OperationalError("the connection is closed"), ErrorClass.CONNECTION),
            (psycopg.InterfaceError("the connection is closed"), ErrorClass.CONNECTION),
            (errors.InsufficientPrivilege("x"), ErrorClass.FATAL),
            (errors.UndefinedTable("x"), ErrorClass.FATAL),
            (errors.ReadOnlySqlTransaction("x"), ErrorClass.FATAL),
            (errors.DiskFull("x"), ErrorClass.FATAL),
            (errors.InvalidPassword("x"), ErrorClass.FATAL),
            (UserError("x"), ErrorClass.FATAL),
            (ValueError("x"), ErrorClass.DATA),
            (KeyError("x"), ErrorClass.DATA),
            (KeyboardInterrupt(), ErrorClass.FATAL),
            (NotImplementedError("x"), ErrorClass.FATAL),
        ],
    )
    def test_an_error_is_classified(self, error, expected):
        assert classify(error) is expected

    def test_a_frame_that_its_schema_rejects_is_bad_data(self):
        import pandas as pd
        import pandera.pandas as pa

        with pytest.raises(pa.errors.SchemaErrors) as refused:
            pa.DataFrameSchema({"a": pa.Column(int, pa.Check.gt(0))}).validate(
                pd.DataFrame({"a": [-1]}), lazy=True
            )
        assert classify(refused.value) is ErrorClass.DATA

    def test_the_message_includes_the_databases_detail(self, conn):
        conn.execute("create temporary table once (id int primary key)")
        conn.execute("insert into once values (1)")
        with pytest.raises(psycopg.Error) as error:
            conn.execute("insert into once values (1)")
        assert describe(error.value) == (
            "UniqueViolation",
            "23505",
            'duplicate key value violates unique constraint "once_pkey" (Key (id)=(1) already exists.)',
        )


class TestThrottle:
    def test_it_pauses_while_more_sessions_than_allowed_wait_for_locks(self, database_url, conn):
        keys = fill(conn, parts=2, units=2)
        with psycopg.connect(database_url) as holder:
            holder.execute("select pg_advisory_lock(1)")
            waiting = [threading.Thread(target=conn_waits, args=[database_url]) for _ in range(2)]
            for thread in waiting:
                thread.start()
            wait_until_blocked(conn, sessions=2)
            logged = []
            for allowed in (1, 2, 0):
                lines: list[str] = []
                outcome = run(
                    database_url, [by_unit], keys, log=lines.append,
                    max_lock_waiters=allowed, max_pause_seconds=0.2,
                )  # fmt: skip
                assert outcome.done == keys
                logged.append(any("2 sessions waiting for a lock, more than 1" in line for line in lines))
            assert logged == [True, False, False]
        for thread in waiting:
            thread.join()

    def test_an_old_transaction_makes_batches_pause_and_shrink_but_not_stop(self, database_url, conn):
        keys = fill(conn, parts=2, units=2)
        lines = []
        with psycopg.connect(database_url) as old:
            old.execute("select 1")
            conn.execute("select pg_sleep(0.2)")
            outcome = run(
                database_url,
                [by_unit],
                keys,
                log=lines.append,
                max_transaction_age=0.1,
                max_pause_seconds=0.3,
            )
        assert outcome.done == keys
        assert any("seconds of the oldest transaction, more than" in line for line in lines)

    def test_it_continues_as_soon_as_the_overload_is_over(self, database_url, conn):
        with psycopg.connect(database_url) as old, psycopg.connect(database_url) as own:
            old.execute("select 1")
            conn.execute("select pg_sleep(0.2)")
            throttle = Throttle(EngineSettings(max_transaction_age=0.1, max_pause_seconds=3600))
            units = size()
            asked = []

            def overload(connection, look=throttle._overload):
                asked.append(look(connection))
                if len(asked) == 2:
                    old.rollback()
                return asked[-1]

            throttle._overload = overload
            assert "oldest transaction" in throttle.pause(own, units)
            assert asked[-1] is None and units.units == 50
