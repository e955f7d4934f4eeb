"""The thread that keeps a worker's leases and listens for what concerns it. Not here: claiming and writing results."""

import threading
import time
from uuid import UUID

import psycopg

from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.link import Link, LinkClosed
from dagster_backfills.domains.queue.outcome import Held


class HeldJobs:
    """What the worker holds, shared by its threads."""

    def __init__(self) -> None:
        self._held: dict[UUID, Held] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def add(self, held: list[Held]) -> None:
        with self._lock:
            self._held.update((h.job.id, h) for h in held)

    def remove(self, held: list[Held]) -> None:
        """Forget these attempts; a later attempt of the same job stays."""
        with self._lock:
            for h in held:
                if self._held.get(h.job.id) is h:
                    del self._held[h.job.id]

    def all(self) -> list[Held]:
        with self._lock:
            return list(self._held.values())

    def stop(self, job_id: UUID) -> None:
        """The job was cancelled or lost: nothing that is done for it counts any more."""
        with self._lock:
            held = self._held.get(job_id)
            if held is not None and not held.stopped:
                held.stopped, held.stopped_at = True, time.monotonic()


class Keeper(threading.Thread):
    """Renews the leases three times a lease, learns which were lost, takes back what dead workers held."""

    def __init__(
        self, url: str, name: str, held: HeldJobs, wake: threading.Event, closing: threading.Event
    ) -> None:
        super().__init__(name="jobs-keeper", daemon=True)
        self._link = Link(url, f"{name} keeper", closing, ("listen jobs_new", "listen jobs_cancelled"))
        self._held, self._wake, self._closing = held, wake, closing
        self._renew_at = 0.0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self._closing.is_set():
                self._link.call(self._round)
        except LinkClosed:
            pass
        except Exception as error:
            self.error = error
            self._wake.set()
        finally:
            self._link.close()

    def _round(self, conn: psycopg.Connection) -> None:
        now = time.monotonic()
        if now >= self._renew_at:
            self._renew_at = now + queue.lease_seconds(conn) / 3
            self._renew(conn)
            queue.take_back_expired(conn)
        pause = min(1.0, max(0.01, self._renew_at - time.monotonic()))
        for notice in conn.notifies(timeout=pause):
            if notice.channel == "jobs_cancelled":
                self._held.stop(UUID(notice.payload))
            self._wake.set()
            if self._closing.is_set() or time.monotonic() >= self._renew_at:
                return

    def _renew(self, conn: psycopg.Connection) -> None:
        ours = [h for h in self._held.all() if not h.stopped]
        if not ours:
            return
        kept = queue.renew(conn, [h.job for h in ours])
        for h in ours:
            if h.job.id not in kept:
                self._held.stop(h.job.id)
        self._wake.set()
