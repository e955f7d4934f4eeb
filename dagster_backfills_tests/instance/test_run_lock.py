"""The lock of a run behind PgBouncer: it is held in session mode, and meaningless in transaction mode."""

import os
import pwd
import shutil
import subprocess
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dagster_backfills.instance import run_lock
from dagster_backfills.instance.run_lock import RunLock
from dagster_backfills.postgres import connection
from dagster_backfills.postgres.placement import choose_account
from dagster_backfills_tests.chaos.stack import free_port
from dagster_backfills_tests.cli.conftest import eventually

PGBOUNCER = shutil.which("pgbouncer")
HELD = "select count(*) from pg_locks where locktype = 'advisory'"
pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed"),
]


@pytest.fixture
def pooled(conn, tmp_path_factory):
    """A function that starts a pooler in some mode for the test's database, and returns its URL."""

    @contextmanager
    def start(mode):
        folder = tmp_path_factory.mktemp("pooler")
        port, info = free_port(), conn.info
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\napp = host={info.host} port={info.port} dbname={info.dbname} user={info.user}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {mode}\n"
        )
        # It refuses to run as root.
        user = ["-u", pwd.getpwuid(choose_account(folder).uid).pw_name] if os.geteuid() == 0 else []
        process = subprocess.Popen(
            [PGBOUNCER, "-q", *user, str(folder / "pgbouncer.ini")], stderr=subprocess.DEVNULL
        )
        url = make_conninfo(host="127.0.0.1", port=port, dbname="app", user="anybody")
        try:
            eventually(lambda: process.poll() is not None or answers(url), 60)
            assert process.poll() is None
            yield url
        finally:
            process.kill()
            process.wait()

    return start


def answers(url):
    try:
        with psycopg.connect(url, prepare_threshold=None):
            return True
    except psycopg.OperationalError:
        return False


def test_behind_a_pooler_in_session_mode_the_lock_is_held(pooled, conn):
    reports = []
    with pooled("session") as url:
        lock = RunLock(lambda: url, "a run", reports.append)
        lock.take()
        assert reports == [True]
        assert conn.execute(HELD).fetchone() == (1,)
        lock.release()
        eventually(lambda: conn.execute(HELD).fetchone() == (0,), 60)
    assert reports == [True]


def test_behind_a_pooler_in_transaction_mode_the_run_is_reported_as_unmonitored(pooled, conn):
    reports = []
    with pooled("transaction") as url:
        RunLock(lambda: url, "a run", reports.append).take()
        assert reports == [False]
        assert conn.execute(HELD).fetchone() == (0,)


def test_a_session_that_a_pooler_shares_later_revokes_the_report(pooled, conn, monkeypatch):
    monkeypatch.setattr(run_lock, "_EVERY_SECONDS", 0.05)
    reports = []
    with pooled("transaction") as url:
        # As if another client's transaction had used the session during the check.
        monkeypatch.setattr(connection, "require_session", lambda url: None)
        lock = RunLock(lambda: url, "a run", reports.append)
        lock.take()
        with psycopg.connect(url, prepare_threshold=None) as other:
            other.execute("begin")
            eventually(lambda: reports == [True, False], 60)
