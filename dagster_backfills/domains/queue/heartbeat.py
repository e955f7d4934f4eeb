"""The thread that renews a worker's leases and listens for notifications. Not here: claiming, storing results."""

import threading
import time
from collections.abc import Callable

import psycopg

from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.attempts import Attempt
from dagster_backfills.domains.queue.connection import Connection, WorkerStopping

_MIN_INTERVAL = 0.1


class Heartbeat(threading.Thread):
    """Renews each lease three times during its term, detects lost leases, and reclaims the jobs of dead workers.

    Any role may send a notification, so its content is ignored: of a cancelled job, it only makes the leases be renewed
    sooner, at most ten times a second.
    """

    def __init__(self, url: str, name: str, held: set[Attempt], wake: Callable[[], None]) -> None:
        super().__init__(name="jobs-heartbeat", daemon=True)
        self._stopping = threading.Event()
        self._connection = Connection(
            url, f"{name} heartbeat", self._stopping, ("jobs_new", "jobs_cancelled")
        )
        self._held, self._wake = held, wake
        self._renewed_at, self._renew_at = 0.0, 0.0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._connection.call(self._beat)
        except WorkerStopping:
            pass
        except Exception as error:
            self.error = error
            self._wake()
        finally:
            self._connection.close()

    def stop(self) -> None:
        """Stop within a fifth of a second."""
        self._stopping.set()

    def _beat(self, conn: psycopg.Connection) -> None:
        now = time.monotonic()
        if now >= self._renew_at:
            self._renewed_at, self._renew_at = now, now + queue.STATEMENTS.lease_seconds(conn) / 3
            self._renew(conn)
            queue.take_back_expired(conn)
        pause = min(0.2, max(0.01, self._renew_at - time.monotonic()))
        for notice in conn.notifies(timeout=pause, stop_after=1):
            if notice.channel == "jobs_cancelled":
                self._renew_at = self._renewed_at + _MIN_INTERVAL
            else:
                self._wake()

    def _renew(self, conn: psycopg.Connection) -> None:
        """Renew the leases, and stop the attempts that have lost theirs."""
        active = [a for a in self._held.copy() if not a.stopped]
        held = queue.renew(conn, [a.job for a in active]) if active else set()
        lost = [a for a in active if a.job.id not in held]
        for attempt in lost:
            attempt.stop()
        if lost:
            self._wake()
