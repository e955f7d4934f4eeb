"""Finding the sessions that block a connection waiting for a lock, from a second connection."""

import threading
from contextlib import suppress

import psycopg

from dagster_backfills.postgres.connection import connect

_POLL_SECONDS = 0.2
_BLOCKERS = """
select
    a.pid,
    coalesce(a.usename, a.backend_type) as who,
    coalesce(nullif(a.application_name, ''), 'no name') as application,
    coalesce(a.state, 'active') as state,
    date_trunc('second', clock_timestamp() - a.xact_start)::text as open_for
from pg_stat_activity as a
where a.pid = any(pg_blocking_pids(%s))
order by a.xact_start nulls last, a.pid
"""


class Blockers:
    """While open, polls for sessions that block the backend `pid`, in a thread of its own."""

    def __init__(self, url: str, pid: int) -> None:
        self._url, self._pid = url, pid
        self._seen, self._done = "", threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> "Blockers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def take(self) -> str:
        """A description of the sessions last seen blocking since the previous call; empty if there were none."""
        seen, self._seen = self._seen, ""
        return seen

    def _poll(self) -> None:
        # If no second connection can be opened, the blockers stay unknown.
        with suppress(psycopg.Error), connect(self._url, autocommit=True) as conn:
            while not self._done.wait(_POLL_SECONDS):
                rows = conn.execute(_BLOCKERS, [self._pid]).fetchall()
                if rows:
                    self._seen = "; ".join(
                        f"process {pid} ({who}, {application}, {state}, transaction open for {open_for})"
                        for pid, who, application, state, open_for in rows
                    )
