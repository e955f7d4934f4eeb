"""The thread that renews a worker's leases and listens for notifications. Not here: claiming, storing results."""

import threading
import time
from collections.abc import Callable, Sequence
from math import inf
from uuid import UUID

import psycopg

from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.attempts import Attempt
from dagster_backfills.domains.queue.connection import Connection, WorkerStopping

_MIN_CHECK_INTERVAL = 0.1
HeldJobs = Callable[[psycopg.Connection, Sequence[queue.Job]], set[UUID]]


class Heartbeat(threading.Thread):
    """Renews each lease three times during its term, detects lost leases, and reclaims the jobs of dead workers.

    Any role may send a notification, so its content is ignored: it only triggers a read of the table, at most ten
    times a second.
    """

    def __init__(self, url: str, name: str, held: set[Attempt], wake: Callable[[], None]) -> None:
        super().__init__(name="jobs-heartbeat", daemon=True)
        self._stopping = threading.Event()
        self._connection = Connection(
            url, f"{name} heartbeat", self._stopping, ("jobs_new", "jobs_cancelled")
        )
        self._held, self._wake = held, wake
        self._renew_at, self._check_at, self._checked_at = 0.0, inf, 0.0
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
            self._renew_at = now + queue.lease_seconds(conn) / 3
            self._stop_lost_attempts(queue.renew, conn)
            queue.take_back_expired(conn)
        elif now >= self._check_at:
            self._check_at, self._checked_at = inf, now
            self._stop_lost_attempts(queue.still_held, conn)
        pause = min(0.2, max(0.01, min(self._renew_at, self._check_at) - time.monotonic()))
        for notice in conn.notifies(timeout=pause, stop_after=1):
            if notice.channel == "jobs_cancelled":
                self._check_at = self._checked_at + _MIN_CHECK_INTERVAL
            else:
                self._wake()

    def _stop_lost_attempts(self, held_jobs: HeldJobs, conn: psycopg.Connection) -> None:
        active = [a for a in self._held.copy() if not a.stopped]
        held = held_jobs(conn, [a.job for a in active]) if active else set()
        lost = [a for a in active if a.job.id not in held]
        for attempt in lost:
            attempt.stop()
        if lost:
            self._wake()
