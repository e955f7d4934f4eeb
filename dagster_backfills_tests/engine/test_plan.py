"""A plan predicts the next run row by row and leaves nothing behind."""

import threading
from dataclasses import asdict

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagster_backfills.engine.model import Query, Target, Write
from dagster_backfills.engine.plan import plan
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.table.address import ByQuery
from dagster_backfills_tests.engine.running import (
    DUE,
    UNITS,
    addressed,
    by_part,
    by_unit,
    computed,
    fill,
    opened,
    run,
    totals,
)

EVERYTHING = (
    "select jsonb_build_array((select jsonb_agg(to_jsonb(u) order by unit) from t.units as u),"
    " (select jsonb_agg(to_jsonb(p) order by part) from t.parts as p),"
    " (select count(*) from backfill.runs), (select count(*) from backfill.batches),"
    " (select count(*) from backfill.failures), (select count(*) from backfill.journal),"
    " (select count(*) from backfill.stale_marks))"
)


def planned(url, writes, keys, **options):
    work = [(addressed(writes), keys)]
    return plan(lambda: opened(url), work, EngineSettings(**{"target_seconds": 0, **options}))


def counts(of):
    return {asset: {key: asdict(count) for key, count in by.items()} for asset, by in of.counts.items()}


def failures(found):
    return sorted((f.asset, f.partition, f.unit or "", f.sqlstate, f.message) for f in found)


def outcome_failures(outcome):
    return failures([*outcome.failed.values(), *outcome.unit_failures])


def test_a_plan_counts_changes_shows_examples_and_leaves_nothing_behind(database_url, conn):
    keys = fill(conn, parts=2, units=3)
    conn.execute(
        "insert into t.units values ('p001', 'p001-u0001', 7), ('p002', 'gone', 9), ('p002', 'p002-u0001', 1);"
        "update t.source set v = '5000' where unit = 'p002-u0003';"
        "select backfill.mark_stale('t/units', array['p001'])"
    )
    before = conn.execute(EVERYTHING).fetchone()
    report = planned(database_url, [by_unit, totals], keys)
    assert conn.execute(EVERYTHING).fetchone() == before
    units = counts(report)["t/units"]
    assert units["p001"] == {"inserted": 2, "updated": 1, "unchanged": 0, "deleted": 0, "failed_units": 0}
    assert units["p002"] == {"inserted": 1, "updated": 0, "unchanged": 1, "deleted": 1, "failed_units": 1}
    assert failures(report.failures)[0][:4] == ("t/units", "p002", "p002-u0003", "23514")
    shown = {(e.asset, e.change, str(e.before), str(e.after)) for e in report.examples}
    one = {"part": "p001", "unit": "p001-u0001"}
    assert ("t/units", "updated", str({"v": 7} | one), str({"v": 1} | one)) in shown
    gone = {"v": 9, "part": "p002", "unit": "gone"}
    assert ("t/units", "deleted", str(gone), "None") in shown
    assert {e.change for e in report.examples} == {"inserted", "updated", "deleted"}
    assert counts(report) == counts(run(database_url, [by_unit, totals], keys))


def test_the_columns_that_differ_come_first_in_an_example(database_url, conn):
    keys = fill(conn, parts=1, units=1)
    conn.execute("insert into t.parts values ('p001', 5, 0)")
    [example] = planned(database_url, [totals], keys).examples
    shown = [list(row.items()) for row in (example.before, example.after)]
    assert [row[0] for row in shown] == [("total", 5), ("total", 0)]
    assert [name for name, _ in shown[0]] == [name for name, _ in shown[1]]


def test_there_are_at_most_twenty_examples_with_every_kind_of_change(database_url, conn):
    keys = fill(conn, parts=3, units=100)
    conn.execute("insert into t.units select 'p003', 'gone' || n, n from generate_series(1, 50) as n")
    conn.execute("insert into t.units values ('p003', 'p003-u0002', 99)")
    report = planned(database_url, [by_part], keys)
    kinds = [example.change for example in report.examples]
    assert len(kinds) == 20 and kinds.count("updated") == 1 and {*kinds} == {"inserted", "updated", "deleted"}


def test_slices_and_the_tables_after_them_are_planned_in_one_transaction(database_url, conn):
    keys = fill(conn, parts=1, units=20)
    conn.execute("update t.source set v = '5000' where unit = 'p001-u0007'")
    report = planned(database_url, [by_unit, totals], keys, batch_units=3)
    after = next(e.after for e in report.examples if e.asset == "t/parts")
    assert after == {"part": "p001", "total": 19, "sum": 203}
    outcome = run(database_url, [by_unit, totals], keys, batch_units=3)
    assert counts(report) == counts(outcome)
    assert failures(report.failures) == outcome_failures(outcome)


def test_a_plan_sends_no_notification_and_leaves_nothing_when_killed(database_url, conn):
    keys = fill(conn, parts=2, units=3)
    conn.execute(
        "create function t.tell() returns trigger language plpgsql as"
        " $$ begin perform pg_notify('told', new.unit); return new; end $$;"
        "create trigger tell after insert on t.units for each row execute function t.tell(); listen told"
    )
    before = conn.execute(EVERYTHING).fetchone()
    planned(database_url, [by_part], keys)

    def stopped(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        planned(database_url, [by_unit, computed(stopped)], keys)
    assert list(conn.notifies(timeout=0.2)) == []
    assert conn.execute(EVERYTHING).fetchone() == before


def test_a_plan_does_not_disturb_a_concurrent_application_and_run(database_url, conn):
    keys = fill(conn, parts=20, units=10)
    stop = threading.Event()
    errors = []

    def application():
        with psycopg.connect(database_url, autocommit=True) as other:
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    other.execute(
                        "update t.units set v = v + 0 where unit = %s", [f"p{number % 20 + 1:03}-u0001"]
                    )
                except psycopg.Error as error:
                    errors.append(error)

    thread = threading.Thread(target=application)
    thread.start()
    try:
        other = threading.Thread(target=lambda: run(database_url, [by_unit, totals], keys, batch_units=15))
        other.start()
        planned(database_url, [by_unit, totals], keys, batch_units=15)
        other.join()
    finally:
        stop.set()
        thread.join()
    assert errors == []
    assert conn.execute("select count(*), sum(total) from t.parts").fetchone() == (20, 200)
    assert conn.execute("select outcome from backfill.runs").fetchall() == [("succeeded",)]


ROWS = st.dictionaries(st.integers(0, 30), st.sampled_from(["1", "2", "5000", "x"]), max_size=20)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    source=ROWS, there=st.dictionaries(st.integers(0, 30), st.integers(1, 2), max_size=20),
    mode=st.sampled_from(["upsert", "insert_missing", "replace"]), with_units=st.booleans(),
    with_totals=st.booleans(), stored=st.booleans(), size=st.sampled_from([1, 3, 1000]),
)  # fmt: skip
def test_without_concurrent_changes_a_plan_equals_the_next_run(
    database_url, conn, source, there, mode, with_units, with_totals, stored, size
):
    conn.execute("drop schema if exists t cascade")
    conn.execute("truncate backfill.runs, backfill.failures, backfill.journal cascade")
    keys = fill(conn, parts=0, units=0) or ["a", "b", "c"]
    with conn.cursor() as cursor:
        cursor.executemany(
            "insert into t.source values (%s, %s, %s)",
            [("abc"[n % 3], f"u{n:02}", v) for n, v in source.items()],
        )
        cursor.executemany(
            "insert into t.units values (%s, %s, %s)",
            [("abc"[n % 3], f"u{n:02}", v) for n, v in there.items()],
        )
    stored = stored or mode == "replace"
    query = Query(UNITS if stored else UNITS.replace("select s.part,", "select s.part, s.part as partition,"))
    target = Target(
        "t/units", "part" if stored else None, unit="unit" if with_units else None, mode=mode,
        partition_in_query=not stored,
    )  # fmt: skip
    units, address = Query(DUE) if with_units else None, None if stored else ByQuery("partition")
    writes = [Write(target, query, units=units, address=address), *([totals] if with_totals else [])]
    before = conn.execute(EVERYTHING).fetchone()
    report = planned(database_url, writes, keys, batch_units=size)
    assert conn.execute(EVERYTHING).fetchone() == before
    outcome = run(database_url, writes, keys, batch_units=size)
    assert counts(report) == counts(outcome)
    assert failures(report.failures) == outcome_failures(outcome)
    accounted = conn.execute(
        "select coalesce(sum(rows_inserted), 0), coalesce(sum(rows_updated), 0), coalesce(sum(rows_deleted), 0)"
        " from backfill.batches as b where not exists (select from backfill.failures as f"
        " where f.unit is null and f.partition = any(b.partitions))"
    ).fetchone()
    total = report.total()
    assert accounted == (total.inserted, total.updated, total.deleted)
