"""Killed workers, lost connections, server restarts: the next attempt resumes and ends with the same tables."""

import os
import random
import signal
import threading
import time
from contextlib import contextmanager

import psycopg
import pytest

from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills.postgres.migrations import apply_migrations
from dagster_backfills_tests.engine.running import (
    by_unit,
    computed,
    fill,
    killed,
    ledger_of,
    run,
    totals,
    units_of,
)

KILLS = 35
PARTS, UNITS, LARGE = 60, 50, 400


def disturb(conn):
    """Tables as an older run left them: one row to delete, one to update, and most rows missing."""
    conn.execute("truncate t.units, t.parts, backfill.runs, backfill.failures cascade")
    conn.execute("insert into t.units values ('p003', 'gone', 1), ('p007', 'p007-x0100', 1)")


def assert_complete(conn):
    """Asserts the tables of an undisturbed run, the bad unit in the ledger, and no work done twice."""
    assert units_of(conn) == dict(
        conn.execute("select unit, v::int from t.source where v <> '5000'").fetchall()
    )
    assert conn.execute("select count(*) from t.parts").fetchone() == (PARTS,)
    assert (
        conn.execute(
            "select part, total, sum from t.parts except select part, count(*), sum(v) from t.units group by part"
        ).fetchall()
        == []
    )
    assert [entry[:3] for entry in ledger_of(conn)] == [("t/units", "p007", "p007-x0250")]
    twice = conn.execute(
        "select asset, p from backfill.batches, unnest(partitions) as p where units_upto is null"
        " group by 1, 2 having count(*) > 1"
    ).fetchall()
    assert twice == []
    assert conn.execute(
        "select sum(units) from backfill.batches where units_upto is not null and partitions = '{p007}'"
    ).fetchone() == (UNITS + LARGE - 1,)


@pytest.mark.programs
def test_repeatedly_killed_runs_end_like_undisturbed_ones(database_url, conn):
    keys = fill(conn, parts=PARTS, units=UNITS)
    conn.execute(
        "insert into t.source select 'p007', format('p007-x%%s', lpad(n::text, 4, '0')), n %% 900"
        " from generate_series(1, %s) n",
        [LARGE],
    )
    conn.execute("update t.source set v = '5000' where unit = 'p007-x0250'")
    moments = random.Random(20240229)
    kills = tries = finished = 0
    disturb(conn)
    while True:
        seconds = moments.uniform(0.0, 0.3) if kills < KILLS else None
        tries += 1
        if killed("worker", [database_url, f"run-{tries}", f"root-{finished}", *keys], seconds):
            kills += 1
            continue
        assert_complete(conn)
        if kills >= KILLS:
            return
        finished += 1
        disturb(conn)


def test_a_run_that_does_not_resume_starts_from_scratch(database_url, conn):
    keys = fill(conn, parts=3, units=2)
    run(database_url, [by_unit], keys, RunIdentity("one", root_run_id="one", resumes=True))
    assert run(database_url, [by_unit], keys, RunIdentity("two")).resumed == []
    assert (
        run(database_url, [by_unit], keys, RunIdentity("three", root_run_id="one", resumes=True)).resumed
        == keys
    )
    assert run(database_url, [by_unit], keys, RunIdentity("four", root_run_id="one")).resumed == []


def test_a_resumed_partition_keeps_the_failures_of_the_earlier_attempt(database_url, conn):
    keys = fill(conn, parts=1, units=10)
    conn.execute("update t.source set v = '5000' where unit = 'p001-u0002'")

    class Killed(BaseException):
        pass

    def killed(connection, part_keys, units):
        if units and units[0] > "p001-u0006":
            raise Killed

    with pytest.raises(Killed):
        run(database_url, [computed(killed), totals], keys, RunIdentity("one"), batch_units=2)
    assert conn.execute("select outcome from backfill.runs").fetchone() == ("interrupted",)
    outcome = run(
        database_url,
        [by_unit, totals],
        keys,
        RunIdentity("two", root_run_id="one", resumes=True),
        batch_units=2,
    )
    assert [entry[2] for entry in ledger_of(conn)] == ["p001-u0002"]
    assert outcome.of("t/units", "p001").failed_units == 1
    assert conn.execute("select sum(units) from backfill.batches where units_upto is not null and asset = 't/units'"
                        ).fetchone() == (9,)  # fmt: skip
    assert len(units_of(conn)) == 9


def test_a_run_interrupted_during_a_statement_cancels_it_and_closes_its_record(database_url, conn):
    keys = fill(conn, parts=1, units=1)
    conn.execute(
        "create function t.crawl() returns trigger language plpgsql as"
        " $$ begin perform pg_sleep(600); return new; end $$;"
        " create trigger crawl before insert on t.units for each row execute function t.crawl()"
    )
    crawling = (
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"
    )

    class Interrupted(BaseException):
        pass

    def interrupt(*_):
        raise Interrupted

    def when_it_crawls():
        with psycopg.connect(database_url, autocommit=True) as watch:
            while watch.execute(crawling).fetchone() == (0,):
                time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Thread(target=when_it_crawls, daemon=True).start()
        with pytest.raises(Interrupted):
            run(database_url, [by_unit], keys, RunIdentity("one"))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert conn.execute("select outcome from backfill.runs").fetchone() == ("interrupted",)
    assert conn.execute(crawling).fetchone() == (0,)
    conn.execute("drop trigger crawl on t.units")
    run(database_url, [by_unit], keys, RunIdentity("two"))
    assert len(units_of(conn)) == 1


class TestLostConnections:
    def test_a_batch_whose_connection_is_lost_is_retried_on_a_new_one(self, database_url, conn):
        keys = fill(conn, parts=6, units=5)
        cut = []

        def cut_once(connection, part_keys, units):
            if "p003" in part_keys and not cut:
                cut.append(connection.info.backend_pid)
                conn.execute("select pg_terminate_backend(%s, 5000)", cut)

        lines = []
        outcome = run(database_url, [computed(cut_once), totals], keys, batch_units=10, log=lines.append)
        assert cut and sorted(outcome.done) == keys
        assert any("connection to Postgres was lost" in line for line in lines)
        assert len(units_of(conn)) == 30
        assert conn.execute("select count(*) from backfill.batches where asset = 't/parts'").fetchone() == (
            3,
        )

    def test_a_sliced_partition_resumes_after_a_lost_connection(self, database_url, conn):
        keys = fill(conn, parts=1, units=20)
        calls = []

        def cut_once(connection, part_keys, units):
            calls.append(units[0])
            if len(calls) == 3:
                conn.execute("select pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])

        outcome = run(database_url, [computed(cut_once), totals], keys, batch_units=4)
        assert outcome.of("t/units", "p001").inserted == 20
        assert len(calls) == 6

    def test_a_commit_whose_response_is_lost_is_not_repeated(self, database_url, conn):
        keys = fill(conn, parts=2, units=3)
        commits = []

        class Lossy(psycopg.Connection):
            def commit(self):
                written = self.execute("select count(*) from t.units").fetchone()[0]
                super().commit()
                if written and not commits:
                    commits.append(written)
                    self.close()
                    raise psycopg.OperationalError("server closed the connection unexpectedly")

        @contextmanager
        def connect():
            with Lossy.connect(database_url) as connection:
                yield connection

        outcome = run(database_url, [by_unit, totals], keys, connect=connect, batch_units=3)
        assert commits == [3]
        assert outcome.done == keys and outcome.of("t/units", "p001").inserted == 3
        assert conn.execute("select count(*) from backfill.batches where asset = 't/units'").fetchone() == (
            2,
        )

    def test_a_server_that_stays_unreachable_raises_its_error_after_the_timeout(self, database_url, conn):
        keys = fill(conn, parts=1, units=1)
        connections = []

        @contextmanager
        def connect():
            if connections:
                raise psycopg.OperationalError("connection refused")
            connections.append(1)
            with psycopg.connect(database_url) as connection:
                yield connection

        def cut(connection, part_keys, units):
            conn.execute("select pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])

        with pytest.raises(psycopg.OperationalError, match="refused"):
            run(database_url, [computed(cut)], keys, connect=connect, reconnect_seconds=0.3)


@pytest.mark.programs
@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_run_survives_a_restart_of_the_server(tmp_path_factory, how):
    import signal

    import psutil

    server = EmbeddedServer(tmp_path_factory.mktemp("restarted"))
    try:
        server.start()
        with psycopg.connect(server.url("postgres"), autocommit=True) as conn:
            conn.execute("create database test")
        url = server.url("test")
        apply_migrations(url)
        with psycopg.connect(url, autocommit=True) as conn:
            keys = fill(conn, parts=6, units=5)
        restarts = []

        def restart_once(connection, part_keys, units):
            if "p003" in part_keys and not restarts:
                restarts.append(1)
                if how == "immediate":
                    postmaster = psutil.Process(int((server.data / "postmaster.pid").read_text().split()[0]))
                    postmaster.send_signal(signal.SIGQUIT)
                    while postmaster.is_running() and postmaster.status() != psutil.STATUS_ZOMBIE:
                        time.sleep(0.05)
                else:
                    server.stop()
                server.start()

        outcome = run(url, [computed(restart_once), totals], keys, batch_units=10)
        assert restarts and sorted(outcome.done) == keys
        with psycopg.connect(url) as conn:
            assert len(units_of(conn)) == 30
            assert conn.execute(
                "select count(*) from backfill.batches where asset = 't/parts'"
            ).fetchone() == (3,)
    finally:
        server.delete()
