"""Operator controls apply from the next batch on, and lose no committed work."""

import time
from types import SimpleNamespace

import pytest

from dagster_backfills.engine import throttle
from dagster_backfills.engine.controls import Setting, change, read
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.errors import UserError
from dagster_backfills_tests.engine.running import (
    InThread,
    by_unit,
    computed,
    fill,
    opened,
    run,
    totals,
    units_of,
)
from dagster_backfills_tests.engine.undoing import undone

ASSETS = ["t/units", "t/parts"]


def set_of(url, **setting):
    with opened(url) as conn:
        change(conn, "parts", ASSETS, Setting(**setting), "alice@host")


@pytest.mark.parametrize("number", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["rest_seconds", "rows_per_second"])
def test_a_negative_or_non_finite_speed_is_rejected(database_url, conn, name, number):
    with pytest.raises(UserError, match="is out of range"):
        set_of(database_url, **{name: number})
    assert read(conn, ASSETS) == []


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def test_a_paused_run_keeps_committed_batches_and_continues_after_resume(database_url, conn):
    keys, lines = fill(conn, parts=10, units=5), []

    def pause_once(connection, part_keys, units):
        if "p004" in part_keys and not lines:
            set_of(database_url, paused=True)

    thread = InThread(database_url, [computed(pause_once), totals], keys, batch_units=5, log=lines.append)
    until(lambda: lines)
    written = units_of(conn)
    assert len(written) == 20 and "parts is paused" in lines[0]
    time.sleep(1.5)  # longer than it takes to look again
    assert units_of(conn) == written
    set_of(database_url, paused=False)
    assert thread.result().total("t/units").inserted == 50
    assert lines[1:] == ["Resuming."]


def test_a_partition_is_paused_between_its_slices(database_url, conn):
    keys, lines = fill(conn, parts=1, units=20), []

    def pause_once(connection, part_keys, units):
        if "p001-u0009" in units:
            set_of(database_url, paused=True)

    thread = InThread(database_url, [computed(pause_once)], keys, batch_units=5, log=lines.append)
    until(lambda: lines)
    assert len(units_of(conn)) == 10
    set_of(database_url, paused=False)
    assert thread.result().total("t/units").inserted == 20


def test_a_run_waits_for_its_write_window_and_a_window_may_cross_midnight(database_url, conn):
    keys, lines = fill(conn, parts=1, units=2), []
    conn.execute(
        "insert into backfill.controls (backfill, assets, window_start, window_end) select 'parts', %s,"
        " (now() at time zone 'UTC' + interval '1 hour')::time, (now() at time zone 'UTC' + interval '2 hours')::time",
        [ASSETS],
    )
    thread = InThread(database_url, [by_unit], keys, log=lines.append)
    until(lambda: lines)
    assert "parts may write only from" in lines[0] and units_of(conn) == {}
    conn.execute("update backfill.controls set window_start = window_end, window_end = window_start")
    assert thread.result().total("t/units").inserted == 2


def test_rest_and_rate_limit_apply_to_the_next_batches(database_url, conn, monkeypatch):
    keys, slept = fill(conn, parts=1, units=12), []
    clock = [0.0]

    def sleep(seconds):
        slept.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(throttle, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: clock[0]))
    set_of(database_url, rows_per_second=4)
    outcome = run(database_url, [by_unit], keys, batch_units=100)
    assert outcome.total("t/units").inserted == 12
    assert conn.execute("select max(units) from backfill.batches").fetchone() == (4,)
    assert sum(slept) == pytest.approx(2)  # between three batches of a second's worth
    slept.clear()
    set_of(database_url, rows_per_second=0, rest_seconds=1.5)
    conn.execute("truncate t.units")
    run(database_url, [by_unit], keys, batch_units=6)
    assert sum(slept) == pytest.approx(1.5)


def test_an_undo_does_not_wait_for_a_paused_backfill(database_url, conn):
    keys = fill(conn, parts=2, units=2)
    run(database_url, [by_unit, totals], keys, RunIdentity("one"))
    set_of(database_url, paused=True)
    undone(database_url, "one")
    assert units_of(conn) == {}


def test_omitted_settings_stay_and_invalid_ones_are_rejected(database_url, conn):
    set_of(database_url, window="22:00–05:00", zone="Europe/Berlin", rest_seconds=2)
    set_of(database_url, paused=True)
    (control,) = read(conn, ["t/parts"])
    assert (control.paused, control.rest_seconds, f"{control.window_start:%H:%M}", control.zone) == (
        True, 2, "22:00", "Europe/Berlin",
    )  # fmt: skip
    assert read(conn, ["t/other"]) == []
    set_of(database_url, window="none", rest_seconds=0)
    (control,) = read(conn, ["t/parts"])
    assert (control.rest_seconds, control.window_start) == (None, None)
    for setting in ({"window": "22-5"}, {"window": "05:00-05:00"}, {"zone": "Mars/Base"}):
        with pytest.raises(UserError):
            set_of(database_url, **setting)
