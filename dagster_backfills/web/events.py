"""Live changes of background jobs: one connection listens for notifications and tells all followers which jobs changed.

A notification only names the job, so followers read what they may see of it (`api/jobs`). Not here: HTTP.
"""

import asyncio
import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID
from weakref import WeakSet

from dagster_backfills.domains.queue import queue
from dagster_backfills.postgres.connection import connect
from dagster_backfills.redact import redact
from dagster_backfills.web.database import Database
from dagster_backfills.web.refusals import Refused

LOG = logging.getLogger("dagster_backfills.web")
_LISTEN_SECONDS = 0.5
_MAX_CHANGES = 100  # a follower that is further behind reads everything again


@dataclass(eq=False)
class Follower:
    """A subscriber. `jobs`: the jobs to follow; empty means all."""

    loop: asyncio.AbstractEventLoop
    jobs: frozenset[UUID] = frozenset()
    changed: set[UUID | None] = field(default_factory=set)
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, changed: set[UUID | None]) -> None:
        """Note that these jobs changed; None stands for any number of jobs."""
        self.changed |= changed & {*self.jobs, None} if self.jobs else changed
        if len(self.changed) > _MAX_CHANGES:
            self.changed = {None}
        if self.changed:
            self.woken.set()

    async def next_changes(self, seconds: float) -> set[UUID | None]:
        """Wait for changes. Raises TimeoutError if there are none within `seconds`."""
        await asyncio.wait_for(self.woken.wait(), seconds)
        self.woken.clear()
        changed, self.changed = self.changed, set()
        return changed


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

    def _tell(self, changed: set[UUID | None]) -> None:
        for follower in list(self._followers):
            follower.loop.call_soon_threadsafe(follower.tell, changed)

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
            self.listening = True
            self._tell({None})  # changes may have been missed
            while not self._end.is_set():
                if changed := queue.changed_jobs(conn, _LISTEN_SECONDS):
                    self._tell(changed)
