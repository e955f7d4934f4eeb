"""Repeatedly killed undos: the next attempt resumes and ends with the original rows."""

import random

import pytest

from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills_tests.engine.running import by_unit, fill, killed, run, totals
from dagster_backfills_tests.engine.undoing import tables

pytestmark = pytest.mark.programs

KILLS = 30
PARTS, UNITS = 40, 50


def test_a_repeatedly_killed_undo_ends_like_an_undisturbed_one(database_url, conn):
    keys = fill(conn, parts=PARTS, units=UNITS)
    conn.execute("insert into t.units select 'p001', 'gone' || n, n from generate_series(1, 300) as n")
    conn.execute("update t.source set v = '1' where unit = 'p002-u0001'")
    conn.execute("insert into t.units values ('p002', 'p002-u0001', 7)")
    before, moments = tables(conn), random.Random(20240229)
    kills = tries = rounds = 0
    while kills < KILLS or not rounds:
        rounds += 1
        run(database_url, [by_unit, totals], keys, RunIdentity(f"run-{rounds}"))
        while True:
            tries += 1
            seconds = moments.uniform(0.0, 0.3) if kills < KILLS else None
            this_try = [database_url, f"run-{rounds}", f"undo-{tries}", f"root-{rounds}"]
            if not killed("undo_worker", this_try, seconds):
                break
            kills += 1
        assert tables(conn) == before
        accounted = conn.execute(
            "select sum(rows_deleted), sum(rows_inserted), sum(rows_updated), sum(rows_unchanged)"
            " from backfill.batches as b join backfill.runs as r using (run_id, step)"
            " where r.root_run_id = %s and b.asset = 't/units'",
            [f"root-{rounds}"],
        ).fetchone()
        assert accounted == (PARTS * UNITS - 1, 300, 1, 0)
