"""Changes of background jobs, as they happen: one connection listens, every follower is told.

A notice of the database's says only where to look, so what is told was read. Not here: HTTP (`api/jobs`).
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
from dagster_backfills.domains.queue.notices import job_of
from dagster_backfills.postgres.connection import connect
from dagster_backfills.redact import redact
from dagster_backfills.web.database import Database
from dagster_backfills.web.refusals import Refused

LOG = logging.getLogger("dagster_backfills.web")
_LOOK_SECONDS = 0.5
_WAITING = 1000  # changes that a follower may be behind
_MANY = 500
RELOAD: dict[str, Any] = {}  # told where changes may have been missed


@dataclass(eq=False)
class Follower:
    """One who is told. `jobs`: only of these; all where it is empty."""

    loop: asyncio.AbstractEventLoop
    jobs: frozenset[UUID] = frozenset()
    changes: "asyncio.Queue[dict[str, Any]]" = field(default_factory=lambda: asyncio.Queue(_WAITING + 1))

    def tell(self, changes: Iterable[dict[str, Any]]) -> None:
        """Of those it follows. One who is too far behind is told to look again."""
        for change in changes:
            if change and self.jobs and change["id"] not in self.jobs:
                continue
            if self.changes.qsize() >= _WAITING:
                while not self.changes.empty():
                    self.changes.get_nowait()
                change = RELOAD
            self.changes.put_nowait(change)


class JobEvents:
    """The listener, for as long as the application runs."""

    def __init__(self, database: Database, most: int) -> None:
        self.database, self.most = database, most
        self.listening = False
        self._followers: WeakSet[Follower] = WeakSet()  # whoever has gone is in it no more
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs-changed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join(timeout=5)

    def follow(self, jobs: Iterable[UUID] = ()) -> Follower:
        """From now on, tell one more. Raises `Refused` where there are too many."""
        if len(self._followers) >= self.most:
            raise Refused(503, f"{self.most} follow already.", "Ask for the status instead.")
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
            except Exception as error:  # whatever it is, it is tried again
                LOG.warning("Changes of jobs are not heard: %s", redact(str(error)))
            self.listening = False
            self._end.wait(2)

    def _listen(self) -> None:
        with connect(self.database.url, autocommit=True, application_name="backfills serve: events") as conn:
            conn.execute("listen jobs_changed")
            since = datetime.now(UTC)
            self.listening = True
            self._tell([RELOAD])
            while not self._end.is_set():
                told = {job_of(notice.payload) for notice in conn.notifies(timeout=_LOOK_SECONDS)}
                if not told or not self._followers:
                    continue
                now = datetime.now(UTC)
                self._tell(_read(conn, told, since))
                since = now - timedelta(seconds=5)
                time.sleep(0.05)


def _read(conn: psycopg.Connection[Any], told: set[UUID | None], since: datetime) -> list[dict[str, Any]]:
    ids = {job for job in told if job}
    more: list[dict[str, Any]] = []
    if None in told:
        changed = queue.rows(conn, "recently_changed_jobs", since=since, max_rows=_MANY)
        ids |= {row["id"] for row in changed}
        more = [RELOAD]  # pending ones may be among them, and are too many to tell one by one
    return [*jobs_of(conn, ids), *more]


def jobs_of(conn: psycopg.Connection[Any], ids: Iterable[UUID]) -> list[dict[str, Any]]:
    """These jobs as they are, the oldest first."""
    wanted = list(ids)
    found = queue.list_jobs(conn, len(wanted), ids=wanted)
    return found[::-1]
