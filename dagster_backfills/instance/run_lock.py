"""A run's liveness lock: an advisory lock in Dagster's database that the run's process holds while it is alive.

The server releases it when the process is gone, for whatever reason and on whatever machine. Not here: handling lost
runs (`run_launcher`).
"""

import threading
from collections.abc import Callable
from typing import Any

import psycopg

from dagster_backfills.errors import NotUsableError
from dagster_backfills.postgres.connection import backend_pid, connect

# The session is checked this often and the lock taken again if it is lost, well within the launcher's grace period.
_EVERY_SECONDS = 5
_FIRST_SECONDS = 10
# Keeps the idle session, and lets the server detect a vanished machine within a minute instead of two hours.
_KEEP = """
    set idle_session_timeout = 0;
    set tcp_keepalives_idle = 30;
    set tcp_keepalives_interval = 10;
    set tcp_keepalives_count = 3
"""
# A shared lock: it excludes nobody, so a reconnecting process need not wait for its lost session to end.
_TAKE = "select pg_try_advisory_lock_shared(hashtextextended('dagster run ' || %s, 0))"
HELD = """
    with wanted as (select hashtextextended('dagster run ' || :run_id, 0) as key)
    select exists (
        select from pg_locks, wanted
        where locktype = 'advisory' and objsubid = 1 and granted
            and classid::bigint = (key >> 32) & 4294967295 and objid::bigint = key & 4294967295
            and database = (select oid from pg_database where datname = current_database())
    )
"""


class RunLock:
    """Holds the lock from `take` to `release` in a background thread, which reconnects if the connection is lost."""

    def __init__(self, url: Callable[[], str], run_id: str, report: Callable[[bool], object]) -> None:
        """`report(True)` is called when the lock is first held, `report(False)` if a pooler makes that impossible."""
        self._url, self._run_id, self._report = url, run_id, report
        self._reported, self._released = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lock of run {run_id}", daemon=True)

    def take(self) -> None:
        """Wait until the lock is held, but only for some seconds. The thread keeps trying after that."""
        self._thread.start()
        self._reported.wait(_FIRST_SECONDS)

    def release(self) -> None:
        """Release the lock."""
        self._released.set()
        self._thread.join(_FIRST_SECONDS)

    def _keep(self) -> None:
        while not self._released.is_set():
            try:
                with self._connect() as conn:
                    if not self._hold(conn):
                        self._set_reported(False)
                        return
            except NotUsableError:  # a pooler that shares server sessions between clients
                self._set_reported(False)
                return
            except Exception:
                self._released.wait(_EVERY_SECONDS)

    def _hold(self, conn: psycopg.Connection[Any]) -> bool:
        """Hold the lock until `release`. Returns False if the session is shared by a pooler."""
        pid = backend_pid(conn)
        conn.execute(_KEEP)
        if conn.execute(_TAKE, [self._run_id]).fetchone() == (True,) and not self._reported.is_set():
            self._set_reported(True)
        while not self._released.wait(_EVERY_SECONDS):
            if backend_pid(conn) != pid:
                return False
        return True

    def _set_reported(self, held: bool) -> None:
        self._report(held)
        self._reported.set()

    def _connect(self) -> psycopg.Connection[Any]:
        return connect(
            self._url(), autocommit=True, prepare_threshold=None, application_name="dagster run",
            connect_timeout=5, keepalives_idle=10, keepalives_interval=5, keepalives_count=2, tcp_user_timeout=15_000,
        )  # fmt: skip
