"""Waiting between batches: while operators want it, and while the database is overloaded. It never stops a backfill."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg

from dagster_backfills.engine.controls import Control, read
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.sizing import BatchSize

_LOOK = 1.0  # seconds between two looks at what operators have set
# Our own sessions are left out: two backfills that meet must not wait for each other to look well.
_HEALTH = """
select
    (select count(*) from pg_stat_activity
        where wait_event_type = 'Lock' and application_name <> %(application)s) as lock_waiters,
    (select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)), 0)
        from pg_stat_replication) as replica_lag_bytes,
    (select coalesce(extract(epoch from max(clock_timestamp() - xact_start)), 0) from pg_stat_activity
        where backend_type = 'client backend' and pid <> pg_backend_pid()) as transaction_age
where not pg_is_in_recovery()
"""


@dataclass
class Throttle:
    """Before each batch: what operators have set of these assets, then a look at the database.

    log: is told why it waits, and that it goes on. written: rows changed so far, when it was last asked.
    """

    settings: EngineSettings
    application: str = "dagster_backfills"
    first: bool = True
    assets: Sequence[str] = ()
    log: Callable[[str], None] = lambda line: None
    written: int = 0

    def pause(self, conn: psycopg.Connection, size: BatchSize, written: int = 0) -> str | None:
        """Rest and, while the database is overloaded, wait in growing steps. Returns the reason it waited."""
        self._keep_to_controls(conn, size, written)
        self.first = False
        reason = self._trouble(conn)
        waited, step = 0.0, self.settings.retry_seconds
        if reason:
            size.shrink()
        worst = reason
        while reason and waited < self.settings.max_pause_seconds:
            time.sleep(step)
            waited += step
            step = min(step * 2, self.settings.max_retry_seconds)
            reason = self._trouble(conn)
        return worst

    def _keep_to_controls(self, conn: psycopg.Connection, size: BatchSize, written: int) -> None:
        """Wait while the backfill is paused or it is not its hour; then rest as long as is set."""
        said: str | None = None
        began, rows = time.monotonic(), written - self.written
        while True:
            controls = read(conn, self.assets) if self.assets else []
            conn.commit()
            reason = next((control.waits for control in controls if control.waits), None)
            if reason and reason != said:
                self.log(f"Waiting: {reason}.")
                said = reason
            left = 0.0 if self.first else self._rest(controls, rows) - (time.monotonic() - began)
            if not reason and left <= 0:
                break
            time.sleep(_LOOK if reason else min(left, _LOOK))
        if said:
            self.log("Going on.")
        for control in controls:
            if control.rows_per_second is not None:
                size.units = max(1, min(size.units, int(control.rows_per_second)))
        self.written = written

    def _rest(self, controls: Sequence[Control], rows: int) -> float:
        """Seconds from the end of the last batch to the next, which has changed so many rows."""
        rests = [self.settings.delay_seconds, *(c.rest_seconds or 0 for c in controls)]
        return max([*rests, *(rows / c.rows_per_second for c in controls if c.rows_per_second)])

    def _trouble(self, conn: psycopg.Connection) -> str | None:
        limits = {
            "sessions waiting for a lock": self.settings.max_lock_waiters,
            "bytes of replica lag": self.settings.max_replica_lag_bytes,
            "seconds of the oldest transaction": self.settings.max_transaction_age,
        }
        if not any(limits.values()):
            return None
        row = conn.execute(_HEALTH, {"application": self.application}).fetchone()
        conn.commit()
        for (name, limit), value in zip(limits.items(), row or (0, 0, 0), strict=True):
            if limit and value > limit:
                return f"{int(value)} {name}, more than {int(limit)}"
        return None
