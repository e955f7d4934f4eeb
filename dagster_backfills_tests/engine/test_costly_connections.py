"""A unit that kills the connection is isolated like other bad units, in a bounded number of attempts with back-off."""

import time
from types import SimpleNamespace

import psycopg
import pytest

from dagster_backfills.engine import session
from dagster_backfills.engine.failures import is_lost
from dagster_backfills.engine.model import Query, Write
from dagster_backfills_tests.engine.running import (
    DUE,
    by_part,
    by_unit,
    computed,
    fill,
    ledger_of,
    opened,
    run,
    totals,
    units_of,
)

BAD = "p002-u0006"
HURRIED = {"conflict_retries": 2, "retry_seconds": 0.001, "max_retry_seconds": 0.01}


@pytest.fixture
def connections(database_url):
    """A connect function that counts its calls."""

    def connect():
        connect.count += 1
        return opened(database_url)

    connect.count = 0
    return connect


def a_backend_that_dies(conn, when):
    conn.execute(
        "create function t.die() returns boolean language plpgsql as"
        " $$ begin perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(60); return true; end $$;"
        " create function t.kill() returns trigger language plpgsql as"
        f" $$ begin if {when} then perform t.die(); end if; return new; end $$;"
        " create trigger kill before insert on t.units for each row execute function t.kill()"
    )


def test_a_unit_that_kills_the_connection_is_isolated_and_all_others_are_written(
    database_url, conn, connections
):
    keys = fill(conn, parts=3, units=16)
    a_backend_that_dies(conn, f"new.unit = '{BAD}'")
    outcome = run(database_url, [by_unit, totals], keys, connect=connections, batch_units=16, **HURRIED)
    assert sorted(outcome.done) == keys and not outcome.failed
    [entry] = ledger_of(conn)
    assert entry[:4] == ("t/units", "p002", BAD, "CostsConnectionError")
    assert "connection was lost on each of 3 attempts" in entry[4]
    assert len(units_of(conn)) == 47 and BAD not in units_of(conn)
    # Twice the partition, and slices of 16, 8, 4 and 2 units; three times the unit; and the first one.
    assert connections.count == 2 + 2 * 4 + 3 + 1


def test_a_unit_that_kills_the_connection_is_isolated_in_a_sliced_partition_too(
    database_url, conn, connections
):
    keys = fill(conn, parts=2, units=64)
    a_backend_that_dies(conn, f"new.unit = '{BAD}'")
    outcome = run(database_url, [by_unit, totals], keys, connect=connections, batch_units=16, **HURRIED)
    assert [failure.unit for failure in outcome.unit_failures] == [BAD]
    assert len(units_of(conn)) == 127
    assert connections.count == 2 * 4 + 3 + 1


def test_a_partition_that_kills_the_connection_fails_alone(database_url, conn, connections):
    keys = fill(conn, parts=8, units=4)
    a_backend_that_dies(conn, f"new.unit = '{BAD}' or new.part = 'p002'")
    outcome = run(database_url, [by_part, totals], keys, connect=connections, **HURRIED)
    assert list(outcome.failed) == ["p002"] and len(outcome.done) == 7
    assert [entry[1:3] for entry in ledger_of(conn)] == [("p002", None)]
    assert connections.count == 2 * 3 + 3 + 1


def test_a_partition_whose_unit_list_kills_the_connection_fails_alone(database_url, conn, connections):
    keys = fill(conn, parts=3, units=8)
    conn.execute("update t.source set v = '5000' where part = 'p002' and unit like '%3'")
    a_backend_that_dies(conn, "false")
    # The list is counted first, for all partitions: there it may not die.
    due = Query(f"{DUE} and (cardinality(%(partition_keys)s::text[]) > 1 or part <> 'p002' or t.die())")
    write = Write(by_unit.target, by_unit.source, units=due)
    outcome = run(database_url, [write, totals], keys, connect=connections, **HURRIED)
    assert list(outcome.failed) == ["p002"] and sorted(outcome.done) == ["p001", "p003"]
    assert "can't be listed" in outcome.failed["p002"].message
    assert connections.count == 3 + 1


def test_the_run_ends_if_every_batch_kills_the_connection(database_url, conn, connections):
    keys = fill(conn, parts=2, units=64)
    a_backend_that_dies(conn, "true")
    with pytest.raises(psycopg.Error) as caught:
        run(
            database_url, [by_unit], keys,
            connect=connections, batch_units=16, max_losses_in_a_row=20, **HURRIED,
        )  # fmt: skip
    assert is_lost(caught.value)
    assert connections.count == 1 + 20
    assert units_of(conn) == {}


def test_the_delay_doubles_after_each_lost_connection_up_to_its_maximum(
    database_url, conn, connections, monkeypatch
):
    rests = []
    monkeypatch.setattr(session, "time", SimpleNamespace(sleep=rests.append, monotonic=time.monotonic))
    monkeypatch.setattr(session, "random", SimpleNamespace(uniform=lambda low, high: 1.0))
    keys = fill(conn, parts=1, units=4)
    a_backend_that_dies(conn, "true")
    with pytest.raises(psycopg.Error):
        run(
            database_url, [by_unit], keys,
            connect=connections, retry_seconds=0.1, max_retry_seconds=0.8, max_losses_in_a_row=6,
        )  # fmt: skip
    assert rests == [0.1, 0.2, 0.4, 0.8, 0.8, 0.8]


def test_a_commit_resets_the_count_of_lost_connections(database_url, conn, connections):
    """Each slice loses the connection once, in total more often than a run may in a row."""
    keys = fill(conn, parts=1, units=40)
    seen = set()

    def cut_once(connection, part_keys, units):
        if units[0] not in seen:
            seen.add(units[0])
            conn.execute("select pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])

    outcome = run(
        database_url, [computed(cut_once)], keys,
        connect=connections, batch_units=4, max_losses_in_a_row=2, **HURRIED,
    )  # fmt: skip
    assert outcome.done == keys and len(units_of(conn)) == 40
    assert connections.count == 1 + 10
