"""Pauses between batches, for operator controls and for an overloaded database. It never ends a run."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg

from dagster_backfills.engine.controls import Control, read
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.sizing import BatchSize

_POLL_SECONDS = 1.0  # how often to read the controls while waiting
# Our own sessions don't count as lock waiters: two backfills must not wait for each other.
_HEALTH = """
select
    (select count(*) from pg_stat_activity
        where wait_event_type = 'Lock' and application_name <> 'dagster_backfills') as lock_waiters,
    (select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)), 0)
        from pg_stat_replication) as replica_lag_bytes,
    (select coalesce(extract(epoch from max(clock_timestamp() - xact_start)), 0) from pg_stat_activity
        where backend_type = 'client backend' and pid <> pg_backend_pid()) as transaction_age
where not pg_is_in_recovery()
"""


@dataclass
class Throttle:
    """Called before each batch: obeys the controls of these assets, then checks the database's load.

    first: no batch was written yet. log: receives the reason for waiting. written: rows changed by the run at the last
    call.
    """

    settings: EngineSettings
    first: bool = True
    assets: Sequence[str] = ()
    log: Callable[[str], None] = lambda line: None
    written: int = 0

    def pause(self, conn: psycopg.Connection, size: BatchSize, written: int = 0) -> str | None:
        """Waits as long as the controls require, then while the database is overloaded, checking ever less often.

        written: rows changed by the run so far. Returns why the database counted as overloaded; None if it did not.
        """
        self._obey_controls(conn, size, written)
        self.first = False
        reason = self._overload(conn)
        waited, step = 0.0, self.settings.retry_seconds
        if reason:
            size.shrink()
        first_reason = reason
        while reason and waited < self.settings.max_pause_seconds:
            time.sleep(step)
            waited += step
            step = min(step * 2, self.settings.max_retry_seconds)
            reason = self._overload(conn)
        return first_reason

    def _obey_controls(self, conn: psycopg.Connection, size: BatchSize, written: int) -> None:
        """Waits while the backfill is paused or outside its write window, then for the configured rest."""
        logged: str | None = None
        began, rows = time.monotonic(), written - self.written
        while True:
            controls = read(conn, self.assets) if self.assets else []
            conn.commit()
            reason = next((control.waits for control in controls if control.waits), None)
            if reason and reason != logged:
                self.log(f"Waiting: {reason}.")
                logged = reason
            left = 0.0 if self.first else self._rest(controls, rows) - (time.monotonic() - began)
            if not reason and left <= 0:
                break
            time.sleep(_POLL_SECONDS if reason else min(left, _POLL_SECONDS))
        if logged:
            self.log("Resuming.")
        for control in controls:
            if control.rows_per_second is not None:
                size.units = max(1, min(size.units, int(control.rows_per_second)))
        self.written = written

    def _rest(self, controls: Sequence[Control], rows: int) -> float:
        """Seconds to wait after the last batch, which changed this many rows."""
        rests = [self.settings.delay_seconds, *(c.rest_seconds or 0 for c in controls)]
        return max([*rests, *(rows / c.rows_per_second for c in controls if c.rows_per_second)])

    def _overload(self, conn: psycopg.Connection) -> str | None:
        limits = {
            "sessions waiting for a lock": self.settings.max_lock_waiters,
            "bytes of replica lag": self.settings.max_replica_lag_bytes,
            "seconds of the oldest transaction": self.settings.max_transaction_age,
        }
        if not any(limits.values()):
            return None
        row = conn.execute(_HEALTH).fetchone()
        conn.commit()
        for (name, limit), value in zip(limits.items(), row or (0, 0, 0), strict=True):
            if limit and value > limit:
                return f"{int(value)} {name}, more than {int(limit)}"
        return None
