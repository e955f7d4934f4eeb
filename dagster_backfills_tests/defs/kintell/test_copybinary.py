"""What the binary form of COPY brings is what the frame had, and ids of any look are known again."""

from datetime import UTC, datetime

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagster_backfills.defs.kintell.copybinary import PIECE, copy_frame
from dagster_backfills.defs.kintell.importer import Options, run_import
from dagster_backfills.defs.kintell.register import register
from dagster_backfills_tests.defs.kintell.sample import add_users, row, write_csv

COLUMNS = {
    "id": pl.Binary,
    "small": pl.Int16,
    "whole": pl.Int32,
    "big": pl.Int64,
    "moment": pl.Datetime("us", "UTC"),
    "words": pl.String,
}
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
ROW = st.tuples(
    st.binary(min_size=16, max_size=16),
    st.none() | st.integers(-(2**15), 2**15 - 1),
    st.none() | st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.none() | st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)),
    st.none() | TEXTS,
)
INTO = 'copy pg_temp.target from stdin (format "binary")'


@pytest.fixture
def table(conn):
    conn.execute(
        "create temp table target "
        "(id uuid, small smallint, whole integer, big bigint, moment timestamptz, words text)"
    )
    return conn


def copied(conn: psycopg.Connection, rows):
    conn.execute("truncate pg_temp.target")
    frame = pl.DataFrame(rows, schema=COLUMNS, orient="row")
    assert copy_frame(conn, INTO, frame) == len(rows)
    return conn.execute(
        "select uuid_send(id), small, whole, big, moment, words from pg_temp.target"
    ).fetchall()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROW, max_size=20))
def test_every_value_arrives_as_it_was(table, rows):
    assert copied(table, rows) == rows


def test_rows_larger_than_a_piece_arrive_whole(table):
    rows = [(bytes([n]) * 16, None, n, n, datetime(2024, 1, n, tzinfo=UTC), "x" * PIECE) for n in (1, 2, 3)]
    assert copied(table, rows) == rows


def test_ids_of_any_look_are_known_again(conn, database_url, tmp_path):
    add_users(conn)
    ids = ['a"b', "a\\b", "{a}", "a,b", "'a'", "null", "é\u202e", "a\nb", "\\", '"']
    for name, inserted, skipped in (("a.csv", len(ids), 0), ("b.csv", 0, len(ids))):
        rows = [row(n, session_id=text, feedback_text=name) for n, text in enumerate(ids)]
        job = register(conn, str(write_csv(tmp_path / name, rows)), [str(tmp_path)]).job
        done = run_import(database_url, job, Options(), [str(tmp_path)])
        assert (done.inserted_rows, done.skipped_rows, done.failed_rows) == (inserted, skipped, 0)
