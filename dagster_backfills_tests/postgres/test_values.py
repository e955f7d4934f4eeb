"""Any value that a table can hold can be shown."""

import json
from copy import deepcopy
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from dagster_backfills.cli.output import duration, json_line, print_table
from dagster_backfills.postgres.values import in_words, show_every_value

ODD = [
    ("timestamptz", "infinity"),
    ("timestamptz", "-infinity"),
    ("timestamptz", "0044-03-15 12:00:00+00 BC"),
    ("timestamptz", "294276-12-31 00:00:00+00"),
    ("timestamp", "infinity"),
    ("timestamp", "12026-01-01 00:00:00"),
    ("date", "infinity"),
    ("date", "-infinity"),
    ("date", "0044-03-15 BC"),
    ("time", "24:00:00"),
    ("timetz", "24:00:00+00"),
    ("bytea", "\\xdead"),
    ("interval", "170000000 years"),
    ("interval", "-170000000 years"),
    ("numeric", "NaN"),
    ("numeric", "Infinity"),
    ("jsonb", "1" + "0" * 5000),
    ("json", "[" * 3000 + "]" * 3000),
]


@pytest.fixture
def odd_conn(conn: psycopg.Connection) -> psycopg.Connection:
    conn.execute("set timezone = 'UTC'")
    show_every_value(conn)
    return conn


@pytest.mark.parametrize(("kind", "text"), ODD)
def test_a_value_that_python_can_not_represent_is_shown_as_postgres_prints_it(odd_conn, capsys, kind, text):
    row = odd_conn.execute(f"select '{text}'::{kind}, array['{text}'::{kind}]").fetchone()
    value, values = deepcopy(row)
    assert in_words(value) == text and [in_words(v) for v in values] == [text]
    assert json.loads(json_line({"value": value})) == {"value": text}
    print_table(["value"], [[in_words(value)]])
    assert capsys.readouterr().out.splitlines()[1] == text


def test_ordinary_values_load_as_usual(odd_conn):
    row = odd_conn.execute(
        """select '2026-05-07 12:00+00'::timestamptz, '2026-05-07'::date, '1 day'::interval, '{"a": [1]}'::jsonb"""
    ).fetchone()
    assert row == (datetime(2026, 5, 7, 12, tzinfo=UTC), date(2026, 5, 7), timedelta(days=1), {"a": [1]})
    assert [type(value) for value in row] == [datetime, date, timedelta, dict]


def test_a_distant_time_compares_as_the_nearest_representable_one(odd_conn):
    late, early = odd_conn.execute("select 'infinity'::timestamptz, '-infinity'::timestamptz").fetchone()
    now = datetime.now(UTC)
    assert early < now < late and sorted([late, now, early]) == [early, now, late]
    assert duration(late - now).endswith("min") and late.astimezone(UTC) is late


def test_without_the_loaders_such_a_value_raises_an_error(conn):
    with pytest.raises(psycopg.DataError):
        conn.execute("select 'infinity'::timestamptz").fetchone()
