"""How changes in source tables are detected, by triggers and by polling, and which partitions they belong to."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import psycopg
import pytest
from psycopg import sql

from dagster_backfills.engine.triggers import SourceTriggers, apply, remove
from dagster_backfills.engine.watched import WatchedTable
from dagster_backfills.errors import UserError
from dagster_backfills_tests.components.adopting import adopter, catalog, load, query, written

TABLES = """
create schema shop;
create table shop.orders (id bigint primary key, shop text, at timestamptz, day date, note json);
create table shop.totals (shop text primary key, orders bigint);
"""
MARKS = "select partition from backfill.stale_marks order by 1"


@pytest.fixture
def shop(conn: psycopg.Connection) -> psycopg.Connection:
    conn.execute(TABLES)
    return conn


def watched(
    select: str = "select shop from changed_rows", name: str = "orders", backfill: str = "totals"
) -> WatchedTable:
    return WatchedTable(backfill, "shop", name, select, ["shop/totals"], "shop")


@pytest.fixture
def triggers(shop: psycopg.Connection) -> Iterator[SourceTriggers]:
    made = SourceTriggers(watched())
    apply(shop, [made])
    yield made


def marked(conn: psycopg.Connection) -> list[Any]:
    """Returns the partitions marked since the last call."""
    found = query(conn, MARKS)
    conn.execute("delete from backfill.stale_marks")
    return found


def test_each_kind_of_change_marks_its_partitions(shop: psycopg.Connection, triggers: SourceTriggers) -> None:
    shop.execute("insert into shop.orders (id, shop) values (1, 'a'), (2, 'b'), (3, null), (4, 'c')")
    assert marked(shop) == ["a", "b", "c"]
    shop.execute("update shop.orders set shop = 'd' where id = 1")
    assert marked(shop) == ["a", "d"]  # its old and its new partition
    shop.execute("""update shop.orders set note = '{"x": 1}' where id = 2""")
    assert marked(shop) == ["b"]  # json has no equality operator
    shop.execute("delete from shop.orders where id = 2")
    assert marked(shop) == ["b"]


def test_a_statement_that_changes_nothing_marks_nothing(
    shop: psycopg.Connection, triggers: SourceTriggers
) -> None:
    shop.execute("insert into shop.orders (id, shop) values (1, 'a')")
    marked(shop)
    shop.execute("update shop.orders set shop = shop")
    shop.execute("update shop.orders set shop = 'z' where false")
    shop.execute("delete from shop.orders where false")
    assert marked(shop) == []


def test_truncating_a_source_marks_every_partition_that_was_ever_written(
    shop: psycopg.Connection, triggers: SourceTriggers
) -> None:
    shop.execute(
        "insert into backfill.runs (run_id, root_run_id, assets, partitions) values ('r', 'r', '{}', 0)"
    )
    shop.execute(
        "insert into backfill.batches (batch_id, asset, run_id, partitions, snapshot, seconds)"
        " select gen_random_uuid(), a, 'r', p, pg_current_snapshot(), 0"
        " from (values ('shop/totals', '{a,b}'::text[]), ('shop/totals', '{b,c}'), ('else/where', '{x}')) as v (a, p)"
    )
    shop.execute("truncate shop.orders")
    assert marked(shop) == ["a", "b", "c"]


def test_a_bulk_load_runs_the_trigger_once_and_marks_each_partition_once(
    shop: psycopg.Connection, triggers: SourceTriggers
) -> None:
    shop.execute("set track_functions = 'all'")
    with shop.cursor() as cursor, cursor.copy("copy shop.orders (id, shop) from stdin") as copy:
        for number in range(20_000):
            copy.write_row((number, f"s{number % 7}"))
    assert marked(shop) == [f"s{n}" for n in range(7)]
    shop.execute("select pg_stat_force_next_flush()")
    assert query(
        shop, "select calls from pg_stat_user_functions where funcname = 'totals of shop.orders'"
    ) == [1]


def test_rows_written_through_a_partitioned_table_are_detected(shop: psycopg.Connection) -> None:
    shop.execute(
        "create table shop.parted (id bigint, shop text) partition by list (shop);"
        " create table shop.parted_a partition of shop.parted for values in ('a');"
        " create table shop.parted_rest partition of shop.parted default"
    )
    apply(shop, [SourceTriggers(watched(name="parted"))])
    shop.execute("insert into shop.parted values (1, 'a'), (2, 'b')")
    assert marked(shop) == ["a", "b"]
    shop.execute("update shop.parted set shop = 'c' where id = 1")  # from one table partition to another
    assert marked(shop) == ["a", "c"]
    watched(name="parted").mark_changes(shop)
    marked(shop)
    shop.execute(
        "insert into shop.parted_a values (3, 'a')"
    )  # statement triggers of the parent do not fire for a statement on a table partition
    assert marked(shop) == []
    watched(name="parted").mark_changes(shop)
    assert marked(shop) == ["a"]


def test_an_application_needs_no_right_on_our_schema_and_its_settings_have_no_effect(
    shop: psycopg.Connection, triggers: SourceTriggers
) -> None:
    by_day = SourceTriggers(watched("select day from changed_rows", backfill="days"))
    apply(shop, [by_day])
    role = sql.Identifier(f"app_{uuid.uuid4().hex[:8]}")
    shop.execute(sql.SQL("create role {0}; grant usage on schema shop to {0}").format(role))
    shop.execute(sql.SQL("grant insert on shop.orders to {}").format(role))
    shop.execute(
        "create schema hostile;"
        " create function hostile.unnest(text[]) returns setof text language sql as $$ select 'stolen' $$;"
        " create function hostile.mark_stale(text, text[]) returns void language sql as $$ select 1/0 $$"
    )
    try:
        shop.execute(sql.SQL("set role {}").format(role))
        shop.execute(
            "set search_path = hostile, pg_catalog; set datestyle = 'German'; set timezone = 'Asia/Tokyo'"
        )
        shop.execute("insert into shop.orders (id, shop, day) values (1, 'a', '2026-03-01'::date)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            shop.execute("select * from backfill.stale_marks")
    finally:
        shop.execute("reset role; reset search_path; reset datestyle; reset timezone")
        shop.execute(sql.SQL("drop owned by {0}; drop role {0}").format(role))
    assert marked(shop) == ["2026-03-01", "a"]


def test_a_replicating_session_fires_no_trigger_and_is_detected_by_polling(
    shop: psycopg.Connection, triggers: SourceTriggers
) -> None:
    watched().mark_changes(shop)
    shop.execute("set session_replication_role = replica")
    shop.execute("insert into shop.orders (id, shop) values (1, 'a')")
    assert marked(shop) == []
    assert watched().mark_changes(shop) == 1
    assert marked(shop) == ["a"]


def test_removing_leaves_no_trace_and_a_changed_declaration_is_noticed(shop: psycopg.Connection) -> None:
    before = catalog(shop, "shop", "backfill")
    made = SourceTriggers(watched())
    assert not made.present(shop)
    apply(shop, [made])
    apply(shop, [made])  # removing them again changes nothing
    assert made.present(shop)
    assert not SourceTriggers(watched("select note::text from changed_rows")).present(shop)
    shop.execute("alter table shop.orders disable trigger user")
    assert not made.present(shop)
    remove(shop, [made])
    remove(shop, [made])
    assert catalog(shop, "shop", "backfill") == before


def test_triggers_of_tables_with_long_names_get_different_names(shop: psycopg.Connection) -> None:
    both = [SourceTriggers(watched(backfill="b" * 70 + end)) for end in ("1", "2")]
    apply(shop, both)
    assert all(each.present(shop) for each in both)
    assert len(query(shop, "select tgname from pg_trigger where tgrelid = 'shop.orders'::regclass")) == 8


def test_a_trigger_that_would_fail_is_rejected_and_none_is_created(shop: psycopg.Connection) -> None:
    before = catalog(shop, "shop", "backfill")
    with pytest.raises(UserError, match='column "nope" does not exist'):
        apply(shop, [SourceTriggers(watched()), SourceTriggers(watched("select nope from changed_rows"))])
    assert catalog(shop, "shop", "backfill") == before


def test_a_role_that_does_not_own_the_table_gets_an_error_with_the_alternatives(
    shop: psycopg.Connection,
) -> None:
    role = sql.Identifier(f"guest_{uuid.uuid4().hex[:8]}")
    shop.execute(sql.SQL("create role {0}; grant usage on schema shop, backfill to {0}").format(role))
    shop.execute(
        sql.SQL("grant create on schema backfill to {0}; grant select on shop.orders to {0}").format(role)
    )
    try:
        shop.execute(sql.SQL("set role {}").format(role))
        with pytest.raises(UserError, match=r"The triggers on shop\.orders can't be created: ") as raised:
            apply(shop, [SourceTriggers(watched())])
    finally:
        shop.execute("reset role")
        shop.execute(sql.SQL("drop owned by {0}; drop role {0}").format(role))
    assert raised.value.hint.startswith(
        "Ask the table's owner to run the SQL that `backfills triggers` prints, or declare"
    )
    assert query(shop, "select count(*) from pg_proc where pronamespace = 'backfill'::regnamespace"
                       " and proname = 'totals of shop.orders'") == [0]  # fmt: skip


# ---- looking ----------------------------------------------------------------------------------------------------


def test_the_first_poll_marks_everything_and_later_ones_only_what_was_written_since(
    shop: psycopg.Connection,
) -> None:
    shop.execute("insert into shop.orders (id, shop) select n, 's' || n % 3 from generate_series(1, 30) as n")
    assert watched().mark_changes(shop) == 3
    assert marked(shop) == ["s0", "s1", "s2"]
    assert watched().mark_changes(shop) == 0
    shop.execute("update shop.orders set note = '1' where id = 4")
    assert watched().mark_changes(shop) == 1
    assert marked(shop) == ["s1"]
    assert watched().mark_changes(shop) == 0


def test_rows_uncommitted_at_one_poll_are_detected_by_the_next(
    shop: psycopg.Connection, database_url: str
) -> None:
    watched().mark_changes(shop)
    with psycopg.connect(database_url) as other:
        other.execute("insert into shop.orders (id, shop) values (1, 'early')")
        with other.transaction():  # rows of a subtransaction have their own transaction ID
            other.execute("insert into shop.orders (id, shop) values (2, 'inner')")
        shop.execute("insert into shop.orders (id, shop) values (3, 'late')")
        watched().mark_changes(shop)
        assert marked(shop) == ["late"]
        other.commit()
    watched().mark_changes(shop)
    assert {"early", "inner"} <= set(marked(shop))
    assert watched().mark_changes(shop) == 0


def test_a_position_from_another_server_is_ignored(shop: psycopg.Connection) -> None:
    """A restored dump contains positions of a server with higher transaction IDs."""
    shop.execute("insert into shop.orders (id, shop) values (1, 'a')")
    watched().mark_changes(shop)
    marked(shop)
    shop.execute("update backfill.source_positions set position = '999999999999'")
    assert watched().mark_changes(shop) == 1


def test_polling_a_view_gives_an_error_with_a_hint(shop: psycopg.Connection) -> None:
    shop.execute("create view shop.seen as select * from shop.orders")
    with pytest.raises(UserError, match="Declare a statement with `due` instead"):
        watched(name="seen").mark_changes(shop)


# ---- calendars --------------------------------------------------------------------------------------------------

CALENDARS = [
    ("hourly", dg.HourlyPartitionsDefinition, "2026-01-01-00:00", "UTC"),
    ("daily", dg.DailyPartitionsDefinition, "2026-01-01", "UTC"),
    ("daily", dg.DailyPartitionsDefinition, "2026-01-01", "America/New_York"),
    ("daily", dg.DailyPartitionsDefinition, "2026-01-01", "Asia/Kolkata"),
    ("weekly", dg.WeeklyPartitionsDefinition, "2026-01-04", "Europe/Berlin"),
    ("monthly", dg.MonthlyPartitionsDefinition, "2026-01-01", "Pacific/Auckland"),
]


@pytest.mark.parametrize(("kind", "definition", "start", "zone"), CALENDARS, ids=lambda v: str(v)[:12])
def test_a_point_in_time_belongs_to_the_same_partition_as_in_dagster(
    shop: psycopg.Connection, tmp_path: Path, kind: str, definition: Any, start: str, zone: str
) -> None:
    defs = f"""type: dagster_backfills.PostgresBackfill
attributes:
  partitions: {{{kind}: "{start}", timezone: {zone}}}
  tables: [{{table: shop.totals, partition_column: day}}]
"""
    backfill = load(
        written(tmp_path, "totals", defs, "-- name: totals\nselect :partition_keys;\n"),
        stale_when={"shop.orders": "at"},
    )
    [table] = backfill.watched()
    calendar = definition(start_date=start, timezone=zone)
    first = calendar.time_window_for_partition_key(calendar.get_first_partition_key()).start
    steps = range(0, 24 * 320, 7 if kind != "hourly" else 1)
    points = [first + timedelta(hours=n, minutes=59 * (n % 2)) for n in steps][:1200]
    window = (
        calendar.get_partition_keys_in_time_window(dg.TimeWindow(first, first + timedelta(days=400)))
        if hasattr(calendar, "get_partition_keys_in_time_window")
        else []
    )
    windows = [(key, calendar.time_window_for_partition_key(key)) for key in window]
    for n, point in enumerate(points):
        shop.execute("insert into shop.orders (id, at) values (%s, %s)", [n, point])
    statement = sql.SQL("with changed_rows as (select * from shop.orders where id = {}) {}")
    for n, point in list(enumerate(points))[:: max(len(points) // 200, 1)]:
        [expected] = [key for key, w in windows if w.start <= point < w.end]
        shop.execute("set datestyle = 'ISO, YMD'; set timezone = 'UTC'")
        assert shop.execute(statement.format(sql.Literal(n), sql.SQL(table.select))).fetchone() == (expected,)


def test_a_date_belongs_to_its_own_day_in_every_time_zone(shop: psycopg.Connection, tmp_path: Path) -> None:
    defs = """type: dagster_backfills.PostgresBackfill
attributes:
  partitions: {daily: "2026-01-01", timezone: America/Los_Angeles}
  stale_when: {shop.orders: day}
  tables: [{table: shop.totals, partition_column: day}]
"""
    backfill = load(written(tmp_path, "totals", defs, "-- name: totals\nselect :partition_keys;\n"))
    apply(shop, [SourceTriggers(table) for table in backfill.watched()])
    shop.execute("insert into shop.orders (id, day) values (1, '2026-03-01')")
    assert marked(shop) == ["2026-03-01"]


def test_an_unfinished_day_is_not_overdue_and_marks_before_the_first_day_are_removed(
    shop: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    defs = """type: dagster_backfills.PostgresBackfill
attributes:
  partitions: {daily: "2026-01-01"}
  stale_when: {shop.orders: day}
  tables: [{table: shop.days, partition_column: day}]
"""
    shop.execute("create table shop.days (day date primary key, orders bigint)")
    rows = "select day, count(*) as orders from shop.orders where day = any(:partition_keys::date[]) group by day"
    backfill = load(written(tmp_path, "days", defs, f"-- name: days\n{rows};\n"))
    apply(shop, [SourceTriggers(table) for table in backfill.watched()])
    shop.execute(
        "insert into shop.orders (id, day) values (1, '2025-12-31'), (2, '2026-01-01'),"
        " (3, (now() at time zone 'UTC')::date)"
    )
    shop.execute("update backfill.stale_marks set marked_at = now() - interval '1 hour'")
    with adopter(backfill, database_url) as days:
        assert days.settle() == 1
        assert (
            query(shop, "select distinct partition from backfill.stale_marks where partition <= '2026-01-01'")
            == []
        )
        assert query(shop, "select count(distinct partition) from backfill.stale_marks") == [1]
        assert query(shop, "select day::text from shop.days") == ["2026-01-01"]
        [fresh] = backfill.rules.evaluate(SimpleNamespace(**days.resources), {"fresh"})
    assert fresh.passed
