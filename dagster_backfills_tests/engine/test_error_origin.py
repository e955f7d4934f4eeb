"""Errors are classified by origin: the same SQLSTATE may come from a row, from our statement or from the server."""

import threading
from contextlib import contextmanager

import psycopg
import pytest

from dagster_backfills.engine.failures import ErrorClass, classify
from dagster_backfills.engine.model import Query, Target, Write
from dagster_backfills.errors import UserError
from dagster_backfills_tests.engine.running import (
    UNITS,
    by_part,
    by_unit,
    computed,
    fill,
    ledger_of,
    run,
    totals,
    units_of,
)

BAD = "p003-u0004"
DATA, FATAL, CONFLICT, LOST = ErrorClass.DATA, ErrorClass.FATAL, ErrorClass.CONFLICT, ErrorClass.CONNECTION


def a_trigger(conn, body, when=f"new.unit = '{BAD}'"):
    conn.execute(
        "create or replace function t.guard() returns trigger language plpgsql as"
        f" $$ begin if {when} then {body}; end if; return new; end $$;"
        " create trigger guard before insert or update on t.units for each row execute function t.guard()"
    )


def raised(conn, statement):
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(statement)
    return caught.value


@pytest.mark.parametrize(
    "state", ["42501", "AP001", "53100", "25006", "57P01", "08006", "XX001", "42P01", "0A000", "57014"]
)
@pytest.mark.parametrize("write", [by_unit, by_part])
def test_a_trigger_that_raises_any_sqlstate_fails_only_its_row(database_url, conn, state, write):
    keys = fill(conn, parts=4, units=6)
    a_trigger(conn, f"raise exception 'under legal hold' using errcode = '{state}'")
    outcome = run(database_url, [write, totals], keys)
    lost = [BAD] if write is by_unit else [f"p003-u000{n}" for n in range(1, 7)]
    assert units_of(conn).keys() == {f"p00{p}-u000{u}" for p in range(1, 5) for u in range(1, 7)} - {*lost}
    [entry] = ledger_of(conn)
    assert entry[1:3] == ("p003", BAD if write is by_unit else None) and entry[4] == "under legal hold"
    assert len(outcome.failed) == (write is by_part)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("perform * from t.nowhere", 'relation "t.nowhere" does not exist'),
        ("perform t.no_such(1)", "function t.no_such(integer) does not exist"),
        ("perform 'NaN'::numeric::int", "cannot convert NaN to integer"),
        ("perform repeat('x', 1 << 30) || 'y'", "requested length too large"),
        ("perform to_tsquery('a &')", 'no operand in tsquery: "a &"'),
    ],
)
def test_a_trigger_error_on_one_row_fails_only_that_row(database_url, conn, body, message):
    keys = fill(conn, parts=4, units=6)
    a_trigger(conn, body)
    run(database_url, [by_unit], keys)
    [entry] = ledger_of(conn)
    assert entry[2] == BAD and message in entry[4]
    assert len(units_of(conn)) == 23


@pytest.mark.parametrize(
    ("cast", "value"),
    [
        ("s.v::numeric::int", "NaN"),  # 0A000
        ("length(to_tsquery(s.v)::text)", "a & & b"),  # 42601
        ("length(repeat(s.v, 1 << 29))", "xyz"),  # 54000
    ],
)
def test_a_value_that_the_query_can_not_handle_fails_only_its_unit(database_url, conn, cast, value):
    keys = fill(conn, parts=4, units=6)
    conn.execute("update t.source set v = %s where unit = %s", [value, BAD])
    query = UNITS.replace("s.v::int", f"case when s.v ~ '^[0-9]+$' then s.v::int else {cast} end")
    write = Write(Target("t/units", "part", unit="unit"), Query(query), units=by_unit.units)
    outcome = run(database_url, [write], keys)
    assert [failure.unit for failure in outcome.unit_failures] == [BAD]
    assert len(units_of(conn)) == 23


def test_a_row_that_a_policy_rejects_fails_alone(database_url, conn):
    keys = fill(conn, parts=4, units=6)
    conn.execute(
        "alter table t.units enable row level security;"
        f" create policy seen on t.units using (true) with check (unit <> '{BAD}')"
    )
    with as_writer(database_url, conn) as connect:
        outcome = run(database_url, [by_unit], keys, connect=connect)
    assert [(f.unit, f.sqlstate) for f in outcome.unit_failures] == [(BAD, "42501")]
    assert len(units_of(conn)) == 23


@contextmanager
def as_writer(url, conn, rights="select, insert, update, delete"):
    """Connections of an ordinary role with these privileges on the tables and all on the engine's schema."""
    role = f"writer_{conn.info.dbname}"
    conn.execute(f"create role {role}")
    conn.execute(
        f"grant usage on schema t, backfill to {role}; grant {rights} on all tables in schema t to {role}"
    )
    conn.execute(f"grant all on all tables in schema backfill to {role}")

    @contextmanager
    def connect():
        with psycopg.connect(url) as connection:
            connection.execute(f"set role {role}")
            connection.commit()
            yield connection

    try:
        yield connect
    finally:
        conn.execute(f"drop owned by {role}; drop role {role}")


def test_a_privilege_that_our_own_statement_lacks_stops_the_run(database_url, conn):
    keys = fill(conn, parts=4, units=6)
    with (
        as_writer(database_url, conn, "select, update, delete") as connect,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        run(database_url, [by_unit], keys, connect=connect)
    assert ledger_of(conn) == []


def test_a_privilege_that_the_engines_functions_lack_stops_the_run(database_url, conn):
    keys = fill(conn, parts=4, units=6)
    with as_writer(database_url, conn) as connect:
        conn.execute(f"revoke delete on backfill.stale_marks from writer_{conn.info.dbname}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="stale_marks"):
            run(database_url, [by_unit], keys, connect=connect)
    assert ledger_of(conn) == [] and units_of(conn) == {}


def test_an_unsupported_feature_of_the_statement_itself_stops_the_run(database_url, conn):
    """SQLSTATE 0A000, as for a NaN, but raised by a statement-level trigger, even without any unit."""
    keys = fill(conn, parts=4, units=6)
    conn.execute(
        "create function t.never() returns trigger language plpgsql as"
        " $$ begin raise exception 'not here' using errcode = '0A000'; end $$;"
        " create trigger never before insert on t.units for each statement execute function t.never()"
    )
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="not here"):
        run(database_url, [by_unit], keys)
    assert ledger_of(conn) == []


@pytest.mark.parametrize("body", ["perform * from t.nowhere", "raise exception 'never'"])
def test_a_trigger_that_rejects_every_row_ends_the_run_at_the_limit(database_url, conn, body):
    keys = fill(conn, parts=40, units=8)
    a_trigger(conn, body, when="true")
    with pytest.raises(UserError, match=r"20 failures in a row.*no row was written in between") as caught:
        run(database_url, [by_unit, totals], keys, max_failures_in_a_row=20)
    assert "max_failures_in_a_row" in caught.value.hint
    assert len(ledger_of(conn)) == 20
    assert conn.execute("select outcome from backfill.runs").fetchone() == ("failed",)


def test_a_trigger_that_breaks_during_the_run_ends_it_at_the_limit(database_url, conn):
    keys = fill(conn, parts=10, units=8)
    a_trigger(conn, "perform * from t.nowhere", when="new.part > 'p003'")
    with pytest.raises(UserError, match="20 failures in a row"):
        run(database_url, [by_unit], keys, batch_units=8, max_failures_in_a_row=20)
    assert len(units_of(conn)) == 24 and len(ledger_of(conn)) == 20


def test_many_adjacent_constraint_violations_do_not_end_the_run(database_url, conn):
    keys = fill(conn, parts=10, units=8)
    conn.execute("update t.source set v = '5000' where part between 'p004' and 'p008'")
    outcome = run(database_url, [by_unit], keys, batch_units=8, max_failures_in_a_row=20)
    assert outcome.done == keys and len(outcome.unit_failures) == 40
    assert len(units_of(conn)) == 40


def test_a_cancelled_statement_ends_the_run_and_fails_no_row(database_url, conn):
    keys = fill(conn, parts=2, units=4)
    a_trigger(conn, "perform pg_sleep(600)", when="true")
    asleep = "select pid from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"

    def cancel():
        with psycopg.connect(database_url, autocommit=True) as other:
            while not (found := other.execute(asleep).fetchone()):
                pass
            other.execute("select pg_cancel_backend(%s)", found)

    threading.Thread(target=cancel, daemon=True).start()
    with pytest.raises(psycopg.errors.QueryCanceled, match="user request"):
        run(database_url, [by_unit], keys)
    assert ledger_of(conn) == []


def test_a_unit_list_that_one_partition_breaks_fails_that_partition(database_url, conn):
    keys = fill(conn, parts=4, units=6)
    conn.execute("update t.source set v = 'x' where unit = %s", [BAD])
    due = Query(
        "select part as partition, unit from t.source where part = any(%(partition_keys)s) and v::int > 0"
    )
    outcome = run(database_url, [Write(by_unit.target, by_unit.source, units=due), totals], keys)
    assert sorted(outcome.done) == ["p001", "p002", "p004"] and list(outcome.failed) == ["p003"]
    [entry] = ledger_of(conn)
    assert entry[1:3] == ("p003", None) and 'type integer: "x"' in entry[4]


@pytest.mark.parametrize(
    ("statement", "state", "expected"),
    [
        ("select 1 / 0", "22012", DATA),
        ("select 'NaN'::numeric::int", "0A000", DATA),
        ("select t::tsquery from (values ('a &'), ('b')) as v (t)", "42601", DATA),
        ("selec 1", "42601", FATAL),
        ("select nothing", "42703", FATAL),
        ("select * from t.nowhere", "42P01", FATAL),
        ("copy t.nowhere from stdin", "42P01", FATAL),
        ("set local statement_timeout = 50; select pg_sleep(30)", "57014", DATA),
        ("set local transaction_read_only = on; delete from t.units", "25006", FATAL),
        ("select pg_cancel_backend(pg_backend_pid()), pg_sleep(30)", "57014", FATAL),
        ("do $$ begin perform * from t.nowhere; end $$", "42P01", DATA),
        ("do $$ begin raise exception sqlstate '57P01'; end $$", "57P01", DATA),
        ("do $$ begin raise exception sqlstate '40001'; end $$", "40001", CONFLICT),
        ("select backfill.begin_batch(array['a'], null::text[]), backfill.nothing()", "42883", FATAL),
        ("select 'PL/pgSQL function' from t.nowhere", "42P01", FATAL),
    ],
)
def test_each_error_has_its_class(database_url, conn, statement, state, expected):
    fill(conn, parts=1, units=1)
    error = raised(conn, statement)
    assert (error.sqlstate, classify(error)) == (state, expected), error


def test_a_terminated_session_counts_as_a_lost_connection(database_url, conn):
    with psycopg.connect(database_url, autocommit=True) as other:
        with pytest.raises(psycopg.Error) as caught:
            other.execute("do $$ begin perform pg_terminate_backend(pg_backend_pid()), pg_sleep(30); end $$")
        assert (classify(caught.value), caught.value.sqlstate) == (LOST, "57P01")
        with pytest.raises(psycopg.Error) as caught:
            other.execute("select 1")
        assert classify(caught.value) is LOST


def test_a_full_disk_stops_the_run(database_url, conn):
    keys = fill(conn, parts=2, units=2)
    seen = []

    def full(connection, part_keys, units):
        seen.append(units)
        raise psycopg.errors.DiskFull("could not extend file: No space left on device")

    with pytest.raises(psycopg.errors.DiskFull):
        run(database_url, [computed(full)], keys)
    assert seen == [None] and ledger_of(conn) == []
