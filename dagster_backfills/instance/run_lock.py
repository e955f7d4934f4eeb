"""A run's sign of life: an advisory lock in Dagster's database, which its process holds for as long as it lives.

The server lets go of it when the process is gone, whatever killed it and wherever it worked, and anybody may ask.
Not here: what follows from the answer (`run_launcher`).
"""

import threading
from collections.abc import Callable
from typing import Any

import psycopg

from dagster_backfills.errors import NotUsableError
from dagster_backfills.postgres.connection import backend_pid, connect

# Looked after this often, and taken again where the server ended the session: well within the launcher's patience.
_EVERY_SECONDS = 5
_FIRST_SECONDS = 10
# An idle session stays; a machine that vanished is noticed by the server in a minute, not in two hours.
_KEEP = """
    set idle_session_timeout = 0;
    set tcp_keepalives_idle = 30;
    set tcp_keepalives_interval = 10;
    set tcp_keepalives_count = 3
"""
# Shared, since nothing is kept out by it: who takes it again need not wait for what is left of a lost session.
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
    """Held by this process from `take` to `release`, through lost connections too: a thread with a connection."""

    def __init__(self, url: Callable[[], str], run_id: str, tell: Callable[[bool], object]) -> None:
        """`tell(held)` is called when the lock is first taken, and with False where it turns out to be nobody's."""
        self._url, self._run_id, self._tell = url, run_id, tell
        self._told, self._released = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lock of run {run_id}", daemon=True)

    def take(self) -> None:
        """Return when the lock is held; after some seconds also without, while it is still tried for."""
        self._thread.start()
        self._told.wait(_FIRST_SECONDS)

    def release(self) -> None:
        """Let go of the lock."""
        self._released.set()
        self._thread.join(_FIRST_SECONDS)

    def _keep(self) -> None:
        while not self._released.is_set():
            try:
                with self._connect() as conn:
                    if not self._hold(conn):
                        self._say(False)
                        return
            except NotUsableError:  # a pooler that shares its sessions
                self._say(False)
                return
            except Exception:
                self._released.wait(_EVERY_SECONDS)

    def _hold(self, conn: psycopg.Connection[Any]) -> bool:
        """Keep the lock until `release`; False where the session is not this process's own."""
        pid = backend_pid(conn)
        conn.execute(_KEEP)
        if conn.execute(_TAKE, [self._run_id]).fetchone() == (True,) and not self._told.is_set():
            self._say(True)
        while not self._released.wait(_EVERY_SECONDS):
            if backend_pid(conn) != pid:
                return False
        return True

    def _say(self, held: bool) -> None:
        self._tell(held)
        self._told.set()

    def _connect(self) -> psycopg.Connection[Any]:
        return connect(
            self._url(), autocommit=True, prepare_threshold=None, application_name="dagster run",
            connect_timeout=5, keepalives_idle=10, keepalives_interval=5, keepalives_count=2, tcp_user_timeout=15_000,
        )  # fmt: skip
