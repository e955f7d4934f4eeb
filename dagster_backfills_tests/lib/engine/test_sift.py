"""Rows that are computed ahead and that the table has already: left out where they surely are the same, only there."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
import psycopg
import pytest

from dagster_backfills.lib.engine.model import Compute, Target, Write
from dagster_backfills.lib.engine.prepared import PreparedWrite
from dagster_backfills.lib.postgres.address import ByValue
from dagster_backfills.lib.postgres.arrays import TextArray
from dagster_backfills.lib.postgres.sift import Sifted
from dagster_backfills_tests.lib.engine.running import computed, fill, run, units_of

UNITS = TextArray(["u1", "u2"])


@pytest.fixture
def t(conn: psycopg.Connection) -> Iterator[psycopg.Connection]:
    conn.execute("create schema t")
    yield conn


def table(conn: psycopg.Connection, kind: str) -> None:
    conn.execute(
        f"create table t.typed (part text, unit text, nth int not null, v {kind}, primary key (part, unit, nth))"
    )


def look(conn: psycopg.Connection, rows: list[tuple[str, int, Any]], dtype: str | None = None) -> Sifted:
    """What is left of these rows (unit, number, value) of partition `p`."""

    def function(*_: object) -> pd.DataFrame:
        frame = pd.DataFrame(rows, columns=["unit", "nth", "v"])
        if dtype is not None:
            frame["v"] = frame["v"].astype(dtype)
        return frame.assign(part="p")

    write = Write(Target("t/typed", "part", unit="unit"), Compute(function, prefetch=1))
    prepared = PreparedWrite.open(conn, write, ByValue("part", "text"), 0, ["p"])
    return prepared.prefetch(conn, "p", UNITS, empty=False)


@pytest.mark.parametrize(
    ("kind", "stored", "given", "dtype"),
    [
        ("smallint", "7", 7, None),
        ("bigint", "9007199254740993", 9007199254740993, "Int64"),
        ("bigint", None, None, "Int64"),
        ("numeric(3,2)", "0.98", 0.98, None),
        ("numeric(8,1)", "-1234.5", -1234.5, None),
        ("double precision", "0.1", 0.1, None),
        ("boolean", "false", False, None),
        ("text", "", "", "str"),
        ("text", None, None, "str"),
        ("text", 'a,"b\nc', 'a,"b\nc', "str"),
        ("text[]", "{a,b}", "{a,b}", "str"),
        ("date", "2026-06-30", "2026-06-30", "str"),
    ],
)
def test_a_row_that_the_table_has_is_left_out(
    t: psycopg.Connection, kind: str, stored: str | None, given: Any, dtype: str | None
) -> None:
    table(t, kind)
    t.execute("insert into t.typed values ('p', 'u1', 1, %s), ('q', 'u1', 1, null)", [stored])
    left = look(t, [("u1", 1, given)], dtype)
    assert (list(left.units or []), left.unchanged) == ([], 1)


@pytest.mark.parametrize(
    ("kind", "stored", "given", "dtype"),
    [
        ("smallint", "7", 8, None),
        ("smallint", None, 0, "Int64"),
        ("smallint", "0", None, "Int64"),
        ("text", None, "", "str"),
        ("text", "", None, "str"),
        ("text", "a", "A", "str"),
        ("boolean", "true", False, None),
        # Equal as floating point numbers, and not in the table.
        ("numeric", "0.10000000000000000001", 0.1, None),
        ("numeric(20,19)", "0.1000000000000000001", 0.1, None),
        # The rules below say nothing of these, so that the merge does.
        ("real", "0.1", 0.1, None),
        ("numeric", "7", 7, None),
        ("timestamptz", "2026-06-30", pd.Timestamp("2026-06-30", tz="UTC"), None),
    ],
)
def test_a_row_that_differs_or_may_differ_is_kept(
    t: psycopg.Connection, kind: str, stored: str | None, given: Any, dtype: str | None
) -> None:
    table(t, kind)
    t.execute("insert into t.typed values ('p', 'u1', 1, %s)", [stored])
    left = look(t, [("u1", 1, given)], dtype)
    assert (set(left.units or []) >= {"u1"}, len(left.data), left.unchanged) == (True, 1, 0)


def test_a_unit_is_kept_with_all_of_its_rows(t: psycopg.Connection) -> None:
    table(t, "int")
    t.execute("insert into t.typed values ('p', 'u2', 1, 1), ('p', 'u1', 1, 1), ('p', 'u1', 2, 1)")
    left = look(t, [("u1", 1, 1), ("u1", 2, 5), ("u2", 1, 1)])
    assert (left.units, len(left.data), left.unchanged) == (["u1"], 2, 1)


@pytest.mark.parametrize("given", [[("u1", 1, 1)], [("u1", 1, 1), ("u2", 1, 1), ("u2", 2, 1)], []])
def test_where_a_row_came_or_went_nothing_is_left_out(t: psycopg.Connection, given: list[Any]) -> None:
    table(t, "int")
    t.execute("insert into t.typed values ('p', 'u1', 1, 1), ('p', 'u2', 1, 1)")
    left = look(t, given)
    assert (left.units, len(left.data), left.unchanged) == (UNITS, len(given), 0)


def test_the_rest_between_two_batches_is_kept_between_slices_of_one_partition_too(
    database_url: str, conn: psycopg.Connection
) -> None:
    keys = fill(conn, parts=1, units=6)
    run(database_url, [computed(lambda *_: None)], keys, batch_units=2, delay_seconds=0.2)
    gaps = conn.execute(
        "select extract(epoch from committed_at - lag(committed_at) over (order by committed_at))::float8"
        " from backfill.batches where units_upto is not null"
    ).fetchall()
    assert [gap is None or gap >= 0.2 for (gap,) in gaps] == [True] * 3


def test_a_second_run_writes_what_differs_and_counts_the_rest(
    database_url: str, conn: psycopg.Connection
) -> None:
    keys = fill(conn, parts=1, units=12)
    write = computed(lambda *_: None)
    write = replace(write, source=Compute(write.source.function, prefetch=2))  # type: ignore[union-attr]
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
