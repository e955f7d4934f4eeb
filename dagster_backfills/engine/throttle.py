"""Waiting while the database is not well. It shrinks and it waits; it never stops a backfill."""

import time
from dataclasses import dataclass

import psycopg

from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.sizing import BatchSize

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
    """Before each batch: the configured rest, then a look at the database."""

    settings: EngineSettings
    application: str = "dagster_backfills"
    first: bool = True

    def pause(self, conn: psycopg.Connection, size: BatchSize) -> str | None:
        """Rest and, while the database is not well, wait with growing steps. Returns the reason it waited."""
        if self.settings.delay_seconds and not self.first:
            time.sleep(self.settings.delay_seconds)
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
