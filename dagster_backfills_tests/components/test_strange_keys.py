"""Partitions with keys as an application has them, and sources that are looked at: planned, explained, followed."""

from pathlib import Path

import psycopg
import pytest

from dagster_backfills.components.backfill import Backfill
from dagster_backfills.components.inspection import inspect
from dagster_backfills.components.loading import declared
from dagster_backfills.components.planning import explain_unit, plan_backfill
from dagster_backfills.dagster.own_resources import database_resources
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.engine.selection import Which
from dagster_backfills.engine.triggers import SourceTriggers, apply
from dagster_backfills.errors import UserError
from dagster_backfills_tests.components.adopting import adopter, query, written

TABLES = """
create schema shop;
create table shop."Order" (id bigint primary key, region text, cents integer);
create table shop.totals (region text not null, id text not null, ratio integer not null, primary key (region, id));
"""
DEFS = """
type: dagster_backfills.PostgresBackfill
attributes:
  partitions: {keys: regions}
  stale_by: polling
  stale_when: {shop."Order": orders_regions}
  tables: [{table: shop.totals, unit: id, partition_column: region}]
"""
# Comments behind what is put into other statements, and signs that mean something there.
QUERIES = """
-- name: regions
select distinct region from shop."Order" order by 1;  -- 100 % of them

-- name: totals_units
select region as partition, id as unit from shop."Order" where region = any(:partition_keys) -- all

-- name: totals
select region, id::text as id, 100 / cents as ratio
from shop."Order" where region = any(:partition_keys)
    and (:unit_keys::text[] is null or id::text = any(:unit_keys)) -- so

-- name: orders_regions
select c.region from changed_rows as c -- it's theirs
"""
STRANGE = [
    "Köln, Süd",
    'O\'Brien "x"',
    "100 %",
    "a/b|c",
    "lang " * 60,
    "{x}",
    ":unit_keys %(a)s",
    "back\\slash",
]


@pytest.fixture
def totals(conn: psycopg.Connection, tmp_path: Path) -> Backfill:
    conn.execute(TABLES)
    rows = [(n, key, 10) for n, key in enumerate(STRANGE)]
    none = [(98, "", 10), (99, None, 10)]
    conn.cursor().executemany('insert into shop."Order" values (%s, %s, %s)', [*rows, *none])
    return declared(written(tmp_path, "totals", DEFS, QUERIES))


def test_whatever_stands_in_a_key_is_a_partition_and_null_and_an_empty_text_are_none(
    totals: Backfill, conn: psycopg.Connection, database_url: str
) -> None:
    with adopter(totals, database_url) as a:
        a.settle()
        assert set(a.instance.get_dynamic_partitions("totals")) == set(STRANGE)
        assert set(query(conn, "select region from shop.totals")) == set(STRANGE)
        apply(conn, [SourceTriggers(table) for table in totals.watched()])
        conn.execute('update shop."Order" set cents = 5')
        assert set(query(conn, "select partition from backfill.stale_marks")) == {"", *STRANGE}
        assert a.settle() == 1
    assert set(query(conn, "select ratio from shop.totals")) == {20}
    assert query(conn, "select count(*)::int from backfill.stale_marks") == [0]


def test_a_plan_looks_at_the_sources_as_the_run_would_and_keeps_nothing_of_it(
    totals: Backfill, conn: psycopg.Connection, database_url: str
) -> None:
    connect = PostgresResource(url=database_url).connect
    with adopter(totals, database_url) as a:
        a.settle()
        conn.execute('update shop."Order" set cents = 5 where region = %s', [STRANGE[0]])
        for _ in range(2):
            assert plan_backfill(totals, connect, Which.due).total().updated == 1
        a.refresh("due")
        assert plan_backfill(totals, connect, Which.due).changes == 0


def test_a_unit_is_explained_although_its_query_fails_over_it_or_its_row_is_gone(
    totals: Backfill, conn: psycopg.Connection, database_url: str
) -> None:
    with adopter(totals, database_url) as a:
        a.settle()
        conn.execute('update shop."Order" set cents = 0 where id = 1')
        a.refresh("all")
        connect = PostgresResource(url=database_url).connect
        with connect() as c:
            failed = explain_unit(totals, c, "1")
            assert [f["message"] for f in failed.failures] == ["division by zero"]
            assert [row["ratio"] for row in failed.tables[0].rows] == [10] and failed.tables[0].now is None
            with pytest.raises(UserError, match="totals has no unit or partition 'nobody'"):
                explain_unit(totals, c, "nobody")


def test_a_table_that_is_no_partition_s_is_missing_until_it_has_been_written(
    conn: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    conn.execute(TABLES + 'create table shop."Umsätze je Tag" (id bigint primary key)')
    text = 'type: dagster_backfills.PostgresBackfill\nattributes: {tables: [{table: shop."Umsätze je Tag", query: q}]}'
    backfill = declared(written(tmp_path, "days", text, "-- name: q\nselect generate_series(1, 3) as id;"))
    assert backfill.assets == ["shop/Ums_tze_je_Tag"]
    connect = PostgresResource(url=database_url).connect
    with adopter(backfill, database_url) as a, connect() as c:
        assert [each.missing for each in backfill.partition_statuses(c, a.instance)] == [True]
        a.refresh("missing")
        assert [str(each) for each in backfill.partition_statuses(c, a.instance)] == ["up to date"]
    assert query(conn, 'select count(*)::int from shop."Umsätze je Tag"') == [3]


@pytest.mark.parametrize(("column", "right"), [("region", False), ("day", True)])
def test_a_calendar_is_read_off_a_time_alone(
    conn: psycopg.Connection, tmp_path: Path, column: str, right: bool
) -> None:
    """A trigger that casts a text to a time would refuse the application's own rows."""
    conn.execute(TABLES + 'alter table shop."Order" add day date; alter table shop.totals add day date')
    conn.autocommit = False
    text = DEFS.replace("{keys: regions}", "{daily: '2026-01-01'}").replace("orders_regions", column)
    backfill = declared(written(tmp_path, "days", text, QUERIES))
    if right:
        inspect(backfill, conn)
    else:
        with pytest.raises(UserError, match="column 'region' is text, not a date or timestamp"):
            inspect(backfill, conn)


def test_the_environment_s_settings_hold_for_a_declaration_s_own_resources(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BACKFILLS_BATCH_UNITS", "7")
    monkeypatch.setenv("BACKFILLS_JOURNAL", "0")
    manager = database_resources.__wrapped__()["backfills_postgres_io_manager"]
    assert (manager.batch_units, manager.journal) == (7, False)
