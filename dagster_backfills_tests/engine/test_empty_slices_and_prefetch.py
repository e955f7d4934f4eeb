"""COPY into empty slices, and prefetched slices: both write the same rows as a plain merge."""

import threading
from dataclasses import replace

import pandas as pd
import psycopg
import pytest

from dagster_backfills.engine.model import Compute
from dagster_backfills.engine.table.arrays import text_array
from dagster_backfills.errors import UserError
from dagster_backfills_tests.engine.running import computed, fill, ledger_of, opened, run, units_of


def nothing(conn, keys, units):
    pass


def watch(conn):
    """Records the statements that insert rows into the table."""
    conn.execute("create table t.statements (text text)")
    conn.execute(
        "create function t.note() returns trigger language plpgsql as $$"
        " begin insert into t.statements values (split_part(current_query(), ' ', 1)); return null; end $$"
    )
    conn.execute("create trigger note after insert on t.units for each statement execute function t.note()")


def statements(conn):
    return conn.execute("select text from t.statements").fetchall()


def prefetched(write, width=2):
    return replace(write, source=Compute(write.source.function, prefetch=width))


class TestFresh:
    @pytest.mark.parametrize("batch_units", [2, 100])
    def test_new_rows_are_copied_and_counted(self, database_url, conn, batch_units):
        keys = fill(conn, parts=1, units=5)
        watch(conn)
        outcome = run(database_url, [computed(nothing)], keys, batch_units=batch_units)
        assert {text for (text,) in statements(conn)} == {"copy"}
        assert len(units_of(conn)) == 5
        counts = outcome.of("t/units", "p001")
        assert (counts.inserted, counts.updated, counts.unchanged, counts.deleted) == (5, 0, 0, 0)

    @pytest.mark.parametrize("batch_units", [2, 100])
    def test_rows_are_merged_if_the_table_has_rows(self, database_url, conn, batch_units):
        keys = fill(conn, parts=1, units=5)
        conn.execute("insert into t.units values ('p001', 'p001-u0001', 0), ('p001', 'gone', 0)")
        outcome = run(database_url, [computed(nothing)], keys, batch_units=batch_units)
        assert units_of(conn) == {f"p001-u000{n}": n for n in range(1, 6)}
        counts = outcome.of("t/units", "p001")
        assert (counts.inserted, counts.updated, counts.deleted) == (4, 1, 1)

    def test_a_concurrently_inserted_row_is_merged(self, database_url, conn):
        keys = fill(conn, parts=1, units=6)
        came = []

        def during(connection, part_keys, units):
            if "p001-u0003" in units and not came:
                came.append(conn.execute("insert into t.units values ('p001', 'p001-u0003', 0)"))

        outcome = run(database_url, [computed(during)], keys, batch_units=2)
        assert units_of(conn) == {f"p001-u000{n}": n for n in range(1, 7)}
        assert outcome.of("t/units", "p001").updated == 1 and not outcome.unit_failures

    @pytest.mark.parametrize("batch_units", [4, 100])
    def test_a_unit_that_the_table_rejects_is_isolated_with_the_databases_message(
        self, database_url, conn, batch_units
    ):
        keys = fill(conn, parts=1, units=10)
        conn.execute("update t.source set v = '5000' where unit = 'p001-u0007'")
        run(database_url, [computed(nothing)], keys, batch_units=batch_units)
        assert len(units_of(conn)) == 9
        [(asset, part, unit, error_class, message, _)] = ledger_of(conn)
        assert (asset, part, unit, error_class) == ("t/units", "p001", "p001-u0007", "CheckViolation")
        assert "units_v_check" in message

    def test_rows_of_another_partition_are_rejected(self, database_url, conn):
        keys = fill(conn, parts=1, units=3)

        def stray(connection, part_keys, units):
            return pd.DataFrame({"part": ["other"], "unit": ["p001-u0001"], "v": [1]})

        write = replace(computed(nothing), source=Compute(stray))
        with pytest.raises(UserError, match="returned a row of partition 'other'"):
            run(database_url, [write], keys)
        assert units_of(conn) == {}

    def test_duplicate_rows_are_rejected_and_named(self, database_url, conn):
        keys = fill(conn, parts=1, units=1)

        def twice(connection, part_keys, units):
            return pd.DataFrame({"part": ["p001"] * 2, "unit": ["p001-u0001"] * 2, "v": [1, 2]})

        run(database_url, [replace(computed(nothing), source=Compute(twice))], keys)
        assert units_of(conn) == {}
        assert "duplicate rows" in ledger_of(conn)[0][4]


class TestPrefetch:
    def test_prefetched_slices_give_the_same_rows_on_other_connections(self, database_url, conn):
        keys = fill(conn, parts=1, units=20)
        threads = set()

        def during(connection, part_keys, units):
            threads.add(threading.current_thread())

        run(database_url, [prefetched(computed(during))], keys, batch_units=3)
        assert threads and threading.main_thread() not in threads
        assert units_of(conn) == {f"p001-u{n:04}": n for n in range(1, 21)}
        counted = conn.execute("select sum(units), count(units_upto) from backfill.batches").fetchone()
        assert counted == (20, 7)

    def test_a_slice_that_can_not_be_prefetched_is_computed_in_its_batch(self, database_url, conn):
        keys = fill(conn, parts=1, units=9)
        cut = []

        def during(connection, part_keys, units):
            if threading.current_thread() is not threading.main_thread():
                cut.append(connection.info.backend_pid)
                conn.execute("select pg_terminate_backend(%s)", [cut[-1]])

        outcome = run(database_url, [prefetched(computed(during))], keys, batch_units=2)
        assert cut and outcome.done == keys and not outcome.unit_failures
        assert len(units_of(conn)) == 9

    def test_without_connections_for_prefetching_the_rows_are_still_written(self, database_url, conn):
        keys = fill(conn, parts=1, units=9)
        opened_before = []

        def connect():
            if opened_before:
                raise psycopg.OperationalError("too many connections")
            opened_before.append(True)
            return opened(database_url)

        outcome = run(database_url, [prefetched(computed(nothing))], keys, connect=connect, batch_units=2)
        assert outcome.done == keys and len(units_of(conn)) == 9

    def test_a_bad_unit_is_isolated(self, database_url, conn):
        keys = fill(conn, parts=1, units=9)
        conn.execute("update t.source set v = 'no number' where unit = 'p001-u0004'")
        run(database_url, [prefetched(computed(nothing))], keys, batch_units=3)
        assert len(units_of(conn)) == 8
        assert [row[2] for row in ledger_of(conn)] == ["p001-u0004"]

    def test_a_mark_made_after_the_first_slice_was_read_stays(self, database_url, conn):
        keys = fill(conn, parts=1, units=6)
        marked = []

        def during(connection, part_keys, units):
            if not marked:
                marked.append(conn.execute("select backfill.mark_stale('t/units', array['p001'])"))

        run(database_url, [prefetched(computed(during), width=1)], keys, batch_units=2)
        assert conn.execute("select asset, partition from backfill.stale").fetchall() == [("t/units", "p001")]


ODD = ["", " ", "a,b", '"', "\\", '\\"', "{}", "NULL", "null", "é中", "a\nb", "'", "%s", "\\n"]


@pytest.mark.parametrize("keys", [[], ["x"], ODD])
def test_a_text_array_arrives_unchanged(conn: psycopg.Connection, keys: list[str]) -> None:
    for statement in ("select %s::text[]", "select array_cat(%s, '{}'::text[])"):
        assert conn.execute(statement, [text_array(keys)]).fetchone() == (keys,)


def test_the_delay_between_batches_applies_to_slices_of_a_partition_too(database_url, conn):
    keys = fill(conn, parts=1, units=6)
    run(database_url, [computed(nothing)], keys, batch_units=2, delay_seconds=0.2)
    gaps = conn.execute(
        "select extract(epoch from committed_at - lag(committed_at) over (order by committed_at))::float8"
        " from backfill.batches where units_upto is not null"
    ).fetchall()
    assert [gap is None or gap >= 0.2 for (gap,) in gaps] == [True] * 3


def test_a_second_run_writes_only_differences_and_counts_unchanged_rows(database_url, conn):
    keys = fill(conn, parts=1, units=12)
    write = prefetched(computed(nothing))
    run(database_url, [write], keys, batch_units=3)
    conn.execute("update t.units set v = 0 where unit = 'p001-u0004'")
    conn.execute("insert into t.units values ('p001', 'p001-u0007x', 0)")
    conn.execute("delete from t.units where unit = 'p001-u0012'")
    counts = run(database_url, [write], keys, batch_units=3).of("t/units", "p001")
    assert (counts.inserted, counts.updated, counts.deleted, counts.unchanged) == (1, 1, 1, 10)
    assert units_of(conn) == {f"p001-u{n:04}": n for n in range(1, 13)}
    again = run(database_url, [write], keys, batch_units=3)
    counts = again.of("t/units", "p001")
    assert (counts.inserted, counts.updated, counts.deleted, counts.unchanged) == (0, 0, 0, 12)
    # A unit that is due and in the table is one unit: four slices, and the end.
    assert again.batches == 5
