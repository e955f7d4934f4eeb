"""Who holds the locks that a connection waits for, seen from another connection while it waits.

Not here: what becomes of the one or the other.
"""

import threading
from contextlib import suppress

import psycopg

from dagster_backfills.postgres.connection import connect

_LOOK_SECONDS = 0.2
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
    """Looks while it is open, in a thread of its own. `pid`: of the backend that may have to wait."""

    def __init__(self, url: str, pid: int) -> None:
        self._url, self._pid = url, pid
        self._seen, self._done = "", threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Blockers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def take(self) -> str:
        """Whoever was seen to be in the way since the last time, in words; empty for nobody."""
        seen, self._seen = self._seen, ""
        return seen

    def _look(self) -> None:
        # Where no further connection is to be had, it stays unknown who it was.
        with suppress(psycopg.Error), connect(self._url, autocommit=True) as conn:
            while not self._done.wait(_LOOK_SECONDS):
                rows = conn.execute(_BLOCKERS, [self._pid]).fetchall()
                if rows:
                    self._seen = "; ".join(
                        f"process {pid} ({who}, {application}, {state}, transaction open for {open_for})"
                        for pid, who, application, state, open_for in rows
                    )
