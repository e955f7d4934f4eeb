"""Live changes of background jobs: one connection listens for notifications and informs all followers.

A notification only names the job, so the job is read before followers are informed. Not here: HTTP (`api/jobs`).
"""

import asyncio
import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from weakref import WeakSet

import psycopg

from dagster_backfills.domains.queue import queue
from dagster_backfills.postgres.connection import connect
from dagster_backfills.redact import redact
from dagster_backfills.web.database import Database
from dagster_backfills.web.refusals import Refused

LOG = logging.getLogger("dagster_backfills.web")
_LISTEN_SECONDS = 0.5
_MAX_BEHIND = 1000  # changes that a follower may be behind
_MAX_CHANGES = 500
RELOAD: dict[str, Any] = {}  # sent instead of a change if changes may have been missed


@dataclass(eq=False)
class Follower:
    """A subscriber. `jobs`: the jobs to follow; empty means all."""

    loop: asyncio.AbstractEventLoop
    jobs: frozenset[UUID] = frozenset()
    changes: "asyncio.Queue[dict[str, Any]]" = field(default_factory=lambda: asyncio.Queue(_MAX_BEHIND + 1))

    def tell(self, changes: Iterable[dict[str, Any]]) -> None:
        """Queue the changes of followed jobs. If the follower is too far behind, replace them by one RELOAD."""
        for change in changes:
            if change and self.jobs and change["id"] not in self.jobs:
                continue
            if self.changes.qsize() >= _MAX_BEHIND:
                while not self.changes.empty():
                    self.changes.get_nowait()
                change = RELOAD
            self.changes.put_nowait(change)


class JobEvents:
    """The listener, which runs as long as the application."""

    def __init__(self, database: Database, most: int) -> None:
        self.database, self.most = database, most
        self.listening = False
        self._followers: WeakSet[Follower] = WeakSet()  # ended streams drop out by themselves
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs-changed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join(timeout=5)

    def follow(self, jobs: Iterable[UUID] = ()) -> Follower:
        """Add a follower. Raises `Refused` if there are too many."""
        if len(self._followers) >= self.most:
            raise Refused(503, f"There are already {self.most} event streams.", "Poll the status instead.")
        follower = Follower(asyncio.get_running_loop(), frozenset(jobs))
        self._followers.add(follower)
        return follower

    def _tell(self, changes: list[dict[str, Any]]) -> None:
        for follower in list(self._followers):
            follower.loop.call_soon_threadsafe(follower.tell, changes)

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                self._listen()
            except Exception as error:  # retried
                LOG.warning("Listening for job changes failed, retrying: %s", redact(str(error)))
            self.listening = False
            self._end.wait(2)

    def _listen(self) -> None:
        with connect(self.database.url, autocommit=True, application_name="backfills serve: events") as conn:
            conn.execute("listen jobs_changed")
            since = datetime.now(UTC)
            self.listening = True
            self._tell([RELOAD])
            while not self._end.is_set():
                changed = queue.changed_jobs(conn, _LISTEN_SECONDS)
                if not changed or not self._followers:
                    continue
                now = datetime.now(UTC)
                self._tell(_read(conn, changed, since))
                since = now - timedelta(seconds=5)
                time.sleep(0.05)


def _read(conn: psycopg.Connection[Any], changed: set[UUID | None], since: datetime) -> list[dict[str, Any]]:
    """The changed jobs. None in `changed` stands for many at once, which are looked up by time."""
    ids = {job for job in changed if job}
    more: list[dict[str, Any]] = []
    if None in changed:
        rows = queue.rows(conn, "recently_changed_jobs", since=since, max_rows=_MAX_CHANGES)
        ids |= {row["id"] for row in rows}
        more = [RELOAD]  # pending jobs may have changed too, and are too many to send one by one
    return [*jobs_of(conn, ids), *more]


def jobs_of(conn: psycopg.Connection[Any], ids: Iterable[UUID]) -> list[dict[str, Any]]:
    """The current state of these jobs, oldest first."""
    wanted = list(ids)
    return queue.list_jobs(conn, len(wanted), ids=wanted)[::-1]
