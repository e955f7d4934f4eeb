"""The thread that renews a worker's leases and listens for what concerns it. Not here: claiming, writing results."""

import threading
import time
from collections.abc import Callable, Sequence
from math import inf
from uuid import UUID

import psycopg

from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.attempts import Attempt
from dagster_backfills.domains.queue.connection import Connection, WorkerEnds

_LOOK_AGAIN = 0.1
Ask = Callable[[psycopg.Connection, Sequence[queue.Job]], set[UUID]]


class Heartbeat(threading.Thread):
    """Renews the leases three times a lease, learns which were lost, takes back what dead workers held.

    Any login may notify: a notice makes this look at the table, at most ten times a second, and is believed nothing.
    """

    def __init__(self, url: str, name: str, held: set[Attempt], wake: Callable[[], None]) -> None:
        super().__init__(name="jobs-heartbeat", daemon=True)
        self._ending = threading.Event()
        self._connection = Connection(url, f"{name} heartbeat", self._ending, ("jobs_new", "jobs_cancelled"))
        self._held, self._wake = held, wake
        self._renew_at, self._look_at, self._looked_at = 0.0, inf, 0.0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                self._connection.call(self._beat)
        except WorkerEnds:
            pass
        except Exception as error:
            self.error = error
            self._wake()
        finally:
            self._connection.close()

    def end(self) -> None:
        """End within a fifth of a second."""
        self._ending.set()

    def _beat(self, conn: psycopg.Connection) -> None:
        now = time.monotonic()
        if now >= self._renew_at:
            self._renew_at = now + queue.lease_seconds(conn) / 3
            self._stop_all_but(queue.renew, conn)
            queue.take_back_expired(conn)
        elif now >= self._look_at:
            self._look_at, self._looked_at = inf, now
            self._stop_all_but(queue.still_held, conn)
        pause = min(0.2, max(0.01, min(self._renew_at, self._look_at) - time.monotonic()))
        for notice in conn.notifies(timeout=pause, stop_after=1):
            if notice.channel == "jobs_cancelled":
                self._look_at = self._looked_at + _LOOK_AGAIN
            else:
                self._wake()

    def _stop_all_but(self, ask: Ask, conn: psycopg.Connection) -> None:
        ours = [a for a in self._held.copy() if not a.stopped]
        kept = ask(conn, [a.job for a in ours]) if ours else set()
        lost = [a for a in ours if a.job.id not in kept]
        for attempt in lost:
            attempt.stop()
        if lost:
            self._wake()
