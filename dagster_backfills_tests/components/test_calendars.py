"""Declarations with calendar partitions: which time a statement gets, and which partitions there are."""

from datetime import UTC, timedelta
from pathlib import Path

import dagster as dg
import pandas as pd
import psycopg
import pytest

from dagster_backfills.engine.triggers import SourceTriggers, apply
from dagster_backfills_tests.components.adopting import adopter, load, query, written
from dagster_backfills_tests.dagster.storing import failure_description

TABLES = """
create schema shop;
create table shop.orders (id bigint generated always as identity, at timestamptz, amount integer);
create table shop.days (day date primary key, orders bigint);
create table shop.times (at timestamptz primary key, orders bigint);
create table shop.keys (key text primary key, orders bigint);
insert into shop.orders (at, amount) select '2026-01-01 12:00Z'::timestamptz + n * interval '1 day', n
from generate_series(0, 89) as n;
"""
DEFS = """type: dagster_backfills.PostgresBackfill
attributes:
  partitions: {{{partitions}}}
  stale_when: {{shop.orders: at}}
  tables: [{{{table}}}]
"""
IN_WINDOW = "from shop.orders where at >= :window_start and at < :window_end group by 1"
STORED = """
select day::text from shop.days union all select at::date::text from shop.times union all select key from shop.keys
order by 1
"""
# By kind of address: the table of the declaration, and its statement.
TARGETS = {
    "a date": (
        "table: shop.days, partition_column: day",
        f"-- name: days\nselect at::date as day, count(*) as orders {IN_WINDOW};\n",
    ),
    "a time": (
        "table: shop.times, partition_column: at",
        f"-- name: times\nselect date_trunc('day', at) as at, count(*) as orders {IN_WINDOW};\n",
    ),
    "the key": (
        "table: shop.keys, partition_column: key",
        f"-- name: keys\nselect to_char(at, 'YYYY-MM-DD') as key, count(*) as orders {IN_WINDOW};\n",
    ),
    "no column": (
        "table: shop.keys",
        "-- name: keys\nselect to_char(at, 'YYYY-MM-DD') as key, to_char(at, 'YYYY-MM-DD') as partition, "
        f"count(*) as orders {IN_WINDOW};\n",
    ),
    "Python": (
        f"table: shop.days, partition_column: day, compute: '{__name__}:orders_by_day', reads: orders",
        "-- name: orders\nselect at from shop.orders where at >= :window_start and at < :window_end;\n",
    ),
}


def orders_by_day(orders: pd.DataFrame) -> pd.DataFrame:
    counts = orders["at"].dt.date.value_counts()
    return pd.DataFrame({"day": counts.index, "orders": counts.to_numpy()})


@pytest.fixture
def shop(conn: psycopg.Connection) -> psycopg.Connection:
    conn.execute(TABLES)
    return conn


@pytest.mark.parametrize("target", TARGETS)
def test_a_statement_that_selects_a_window_gets_none_of_the_days_between_those_of_the_run(
    shop: psycopg.Connection, database_url: str, tmp_path: Path, target: str
) -> None:
    table, statement = TARGETS[target]
    defs = DEFS.format(partitions="daily: '2026-01-01'", table=table)
    with adopter(load(written(tmp_path, "daily", defs, statement)), database_url) as project:
        project.refresh("named", "2026-01-05", "2026-01-01", "2026-01-02", "2026-01-09")
    stored = query(shop, STORED)
    assert stored == ["2026-01-01", "2026-01-02", "2026-01-05", "2026-01-09"]
    assert query(shop, "select count(distinct batch_id) from backfill.batches") == [3]


@pytest.mark.parametrize(
    ("calendar", "first", "following"),
    [("weekly", "2025-12-28", "2026-01-04"), ("monthly", "2026-01-01", "2026-02-01")],
)
def test_the_first_week_or_month_is_the_one_with_the_declared_day(
    tmp_path: Path, calendar: str, first: str, following: str
) -> None:
    for day in ("2026-01-01", "2026-01-03"):
        defs = DEFS.format(partitions=f"{calendar}: '{day}'", table="table: shop.days, partition_column: day")
        backfill = load(written(tmp_path / day, calendar, defs, TARGETS["a date"][1]))
        assert backfill.partitions_def is not None
        assert list(backfill.partitions_def.get_partition_keys())[:2] == [first, following]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns", "Australia/Adelaide", "UTC"])
def test_each_of_the_two_hours_when_summer_time_ends_is_marked_by_its_own_changes(
    shop: psycopg.Connection, tmp_path: Path, zone: str
) -> None:
    calendar = dg.HourlyPartitionsDefinition(start_date="2025-10-01-00:00", timezone=zone)
    keys = calendar.get_partition_keys()[: 24 * 210]
    repeated = [n for n, key in enumerate(keys) if len(key) > len("2026-01-31-05:00")]
    assert len(repeated) == (zone != "UTC")
    defs = DEFS.format(
        partitions=f"hourly: '2025-10-01-00:00', timezone: {zone}",
        table="table: shop.times, partition_column: at",
    )
    backfill = load(written(tmp_path, "hourly", defs, TARGETS["a time"][1]))
    apply(shop, [SourceTriggers(table) for table in backfill.watched()])
    for n in range(repeated[0] - 2, repeated[0] + 2) if repeated else [5]:
        shop.execute("delete from backfill.stale_marks")
        start = calendar.time_window_for_partition_key(keys[n]).start.astimezone(UTC)
        shop.execute("insert into shop.orders (at) values (%s)", [start + timedelta(minutes=59)])
        assert query(shop, "select partition from backfill.stale_marks") == [keys[n]]


def test_a_row_of_another_week_than_the_calendars_is_refused(
    shop: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    """Postgres's weeks begin on Monday, Dagster's on Sunday."""
    defs = DEFS.format(partitions="weekly: '2026-01-04'", table="table: shop.days, partition_column: day")
    statement = (
        f"-- name: days\nselect date_trunc('week', at)::date as day, count(*) as orders {IN_WINDOW};\n"
    )
    with adopter(load(written(tmp_path, "weekly", defs, statement)), database_url) as project:
        message = failure_description(project.refresh("named", "2026-01-04", expect=False))
    assert "returned a row in no partition, but the batch writes only '2026-01-04'" in message
    assert query(shop, "select count(*) from shop.days") == [0]
