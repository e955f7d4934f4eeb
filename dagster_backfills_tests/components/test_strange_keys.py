"""Partitions with unusual keys, and polled sources: planned, explained, followed."""

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
from dagster_backfills_tests.components.adopting import adopter, load, query, written

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
# Comments at the end of embedded statements, and characters that are special there.
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


def test_any_text_can_be_a_partition_key_but_null_and_an_empty_text_are_none(
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


def test_a_plan_polls_the_sources_like_a_run_and_keeps_nothing_of_it(
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


def test_a_unit_is_explained_even_if_its_query_fails_or_its_row_is_gone(
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


def test_an_unpartitioned_table_is_missing_until_it_has_been_written(
    conn: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    conn.execute(TABLES + 'create table shop."Umsätze je Tag" (id bigint primary key)')
    text = 'type: dagster_backfills.PostgresBackfill\nattributes: {tables: [{table: shop."Umsätze je Tag", query: q}]}'
    backfill = declared(written(tmp_path, "days", text, "-- name: q\nselect generate_series(1, 3) as id;"))
    assert backfill.assets == ["shop/Ums_tze_je_Tag"]
    connect = PostgresResource(url=database_url).connect
    with adopter(backfill, database_url) as a, connect() as c:
        assert [each.missing for each in backfill.partition_statuses(c)] == [True]
        a.refresh("missing")
        assert [str(each) for each in backfill.partition_statuses(c)] == ["up to date"]
    assert query(conn, 'select count(*)::int from shop."Umsätze je Tag"') == [3]


def test_what_is_missing_does_not_depend_on_the_dagster_instance(
    totals: Backfill, conn: psycopg.Connection, database_url: str
) -> None:
    with adopter(totals, database_url) as a:
        a.settle()
    batches = "select count(*)::int from backfill.batches"
    before = query(conn, batches)
    with adopter(totals, database_url) as b:  # a new instance, in which nothing is materialized
        b.refresh("missing")
        assert query(conn, batches) == before
        conn.execute('insert into shop."Order" values (100, %s, 10)', ["new"])
        b.refresh("missing")
    assert query(conn, "select id from shop.totals where region = 'new'") == ["100"]


def test_a_table_that_is_added_to_a_declaration_makes_every_partition_missing(
    totals: Backfill, conn: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    with adopter(totals, database_url) as a:
        a.settle()
        assert totals.selection().missing_keys(conn) == []
    conn.execute("create table shop.more (like shop.totals including all)")
    tables = [table.model_dump(exclude_unset=True) for table in totals.declared.tables]
    both = load(totals.folder, tables=[*tables, {**tables[0], "table": "shop.more", "query": "totals"}])
    assert set(both.selection().missing_keys(conn)) == set(STRANGE)
    with adopter(both, database_url) as a:
        a.refresh("missing")
    assert both.selection().missing_keys(conn) == []
    assert set(query(conn, "select region from shop.more")) == set(STRANGE)


def test_former_partitions_are_named_as_long_as_they_have_rows(
    totals: Backfill, conn: psycopg.Connection, database_url: str
) -> None:
    with adopter(totals, database_url) as a:
        a.settle()
        assert totals.left_behind(conn) == []
        conn.execute('delete from shop."Order" where region = any(%s)', [STRANGE[:2]])
        a.settle()
    assert totals.left_behind(conn) == sorted(STRANGE[:2])
    conn.execute("delete from shop.totals where region = %s", [STRANGE[0]])
    assert totals.left_behind(conn) == [STRANGE[1]]


@pytest.mark.parametrize(
    ("kind", "key"),
    [("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"), ("integer", "01"), ("date", "2026-1-1")],
)
def test_a_key_may_differ_from_the_text_of_the_column(
    conn: psycopg.Connection, database_url: str, tmp_path: Path, kind: str, key: str
) -> None:
    conn.execute(TABLES + f"alter table shop.totals alter region type {kind} using null::text::{kind}")
    rows = 'insert into shop."Order" select n, %s, 10 from generate_series(1, 5) as n'
    conn.execute(rows, [key])
    queries = QUERIES.replace(
        "region = any(:partition_keys)", f"region::{kind} = any(:partition_keys::{kind}[])"
    )
    queries = queries.replace("region as partition", f"region::{kind} as partition")
    queries = queries.replace("select region, id::text", f"select region::{kind} as region, id::text")
    backfill = declared(written(tmp_path, "totals", DEFS, queries))
    ratios = "select ratio from shop.totals order by id"
    with adopter(backfill, database_url, batch_units=2, target_seconds=0) as a:
        a.settle()
        assert query(conn, "select units from backfill.runs") == [5]
        sizes = "select units from backfill.batches where units_upto is not null order by units_upto"
        assert query(conn, sizes) == [2, 2, 1]
        conn.execute('update shop."Order" set cents = case id when 2 then 0 else 20 end where id < 3')
        conn.execute('delete from shop."Order" where id = 5')
        a.settle()
        assert query(conn, ratios) == [5, 10, 10, 10]
        with PostgresResource(url=database_url).connect() as c:
            assert [each.partition for each in backfill.partition_statuses(c) if each.failed] == [key]
            unit, partition = explain_unit(backfill, c, "2"), explain_unit(backfill, c, key)
        assert unit.partitions == [key] and [f["partition"] for f in unit.failures] == [key]
        assert len(partition.tables[0].rows) == 4
        conn.execute('delete from shop."Order"')
        a.settle()
    assert backfill.left_behind(conn) == [key]


@pytest.mark.parametrize(("column", "right"), [("region", False), ("day", True)])
def test_calendar_partitions_need_a_time_column(
    conn: psycopg.Connection, tmp_path: Path, column: str, right: bool
) -> None:
    """A trigger that casts text to a time would reject the application's own rows."""
    conn.execute(TABLES + 'alter table shop."Order" add day date; alter table shop.totals add day date')
    conn.autocommit = False
    text = DEFS.replace("{keys: regions}", "{daily: '2026-01-01'}").replace("orders_regions", column)
    backfill = declared(written(tmp_path, "days", text, QUERIES))
    if right:
        inspect(backfill, conn)
    else:
        with pytest.raises(UserError, match="column 'region' is text, not a date or timestamp"):
            inspect(backfill, conn)


def test_settings_from_the_environment_apply_to_a_declarations_own_resources(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BACKFILLS_BATCH_UNITS", "7")
    monkeypatch.setenv("BACKFILLS_JOURNAL", "0")
    manager = database_resources.__wrapped__()["backfills_postgres_io_manager"]
    assert (manager.batch_units, manager.journal) == (7, False)
