"""The worker: one loop that claims jobs, hands them to threads, and writes their results down.

Two connections: this loop's, and the heartbeat's. What becomes of a job is the database's decision; this module only
brings it there.
"""

import os
import queue as queues
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import uuid4

import psycopg

from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.attempts import Attempt, Result
from dagster_backfills.domains.queue.connection import Connection, WorkerEnds
from dagster_backfills.domains.queue.heartbeat import Heartbeat
from dagster_backfills.domains.queue.registry import Registry
from dagster_backfills.domains.queue.results import record
from dagster_backfills.domains.queue.threads import HandlerThreads

_PREFETCH_SECONDS = 0.5
_WAITS_TOO_LONG = 2.0
_REPORT_EVERY = 0.1
_END_SECONDS = 10.0
# A handler's progress, or its result; None only wakes the loop.
Message = tuple[Attempt, int | None, str | None] | Result | None


@dataclass(frozen=True)
class WorkerOptions:
    """Seconds where nothing else is said. `prefetch`: the most short jobs that are claimed ahead."""

    concurrency: int = 4
    idle_seconds: float = 30.0
    max_seconds: float = 3600.0
    poll_seconds: float = 1.0
    grace_seconds: float = 5.0
    finish_seconds: float = 30.0
    prefetch: int = 1000


@dataclass
class Tally:
    """What a worker did. `lost`: attempts whose end came too late to count. `stopped`: cancelled while at work."""

    completed: int = 0
    failed: int = 0
    retried: int = 0
    lost: int = 0
    stopped: int = 0
    given_back: int = 0
    seconds: float = 0.0
    by_type: dict[str, int] = field(default_factory=dict)

    def count(self, result: Result) -> None:
        """Count one attempt's end."""
        setattr(self, result.status, getattr(self, result.status) + 1)
        if result.status == "completed":
            self.by_type[result.job.job_type] = self.by_type.get(result.job.job_type, 0) + 1


class Worker:
    """One process's worth of work on the queue. `run` returns when the queue stayed empty or the time is up."""

    def __init__(
        self,
        url: str,
        registry: Registry,
        options: WorkerOptions | None = None,
        *,
        name: str = "",
        on_result: Callable[[Result], None] | None = None,
    ) -> None:
        self.options = options or WorkerOptions()
        self.name = name or f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:6]}"
        self.tally = Tally()
        self._url, self._on_result = url, on_result
        self._stopping = threading.Event()
        self._inbox: queues.SimpleQueue[Message] = queues.SimpleQueue()
        self._untold: deque[Result] = deque()
        self._held: set[Attempt] = set()  # the heartbeat looks at it too
        self._connection = Connection(url, self.name, self._stopping)
        self._heartbeat = Heartbeat(url, self.name, self._held, self._wake)
        self._threads = HandlerThreads(
            self.options.concurrency, registry, self._report, self._inbox.put, self.options.grace_seconds
        )
        self._ended = 0  # since the last claim
        self._begun = self._claimed_at = time.monotonic()

    def stop(self) -> None:
        """Ask the worker to end now and give back what it holds. May be called from any thread."""
        self._stopping.set()
        self._wake()

    def run(self) -> Tally:
        """Work. Whatever ends it, an exception that a signal raised included, its jobs go back to the queue."""
        self._begun = time.monotonic()
        self._heartbeat.start()
        try:
            with suppress(WorkerEnds):
                self._work()
                self._finish_running()
        finally:
            self._shut_down()
            self.tally.seconds = time.monotonic() - self._begun
        self._tell()
        return self.tally

    def _work(self) -> None:
        busy_at = self._begun
        while not self._stopping.is_set():
            if self._heartbeat.error is not None:
                raise self._heartbeat.error
            self._threads.replace_deaf()
            claimed = self._claim()
            now = time.monotonic()
            if claimed or len(self._held):
                busy_at = now
            left = min(busy_at + self.options.idle_seconds, self._begun + self.options.max_seconds) - now
            if left <= 0:
                return
            self._take_in(0 if claimed else min(self.options.poll_seconds, left))
            self._tell()

    def _claim(self) -> int:
        """Claim what can start now, and half a second's work ahead, going by the jobs since the last claim."""
        concurrency, now = self.options.concurrency, time.monotonic()
        since = max(now - self._claimed_at, 0.001)
        if since > _WAITS_TOO_LONG and self._threads.waiting:
            self._give_back_waiting()
        ahead = min(self.options.prefetch, int(self._ended * _PREFETCH_SECONDS / since))
        wanted = max(concurrency, ahead)
        if len(self._held) >= concurrency and len(self._held) > wanted // 2:
            return 0
        room = wanted - len(self._held)
        time_left = self._begun + self.options.max_seconds - now
        jobs = self._connection.call(lambda conn: queue.claim(conn, self.name, room), give_up_after=time_left)
        if jobs:
            self._claimed_at, self._ended = time.monotonic(), 0
            attempts = [Attempt(job) for job in jobs]
            self._held.update(attempts)
            self._threads.put(attempts)
        return len(jobs)

    def _give_back_waiting(self) -> None:
        """Leave to other workers what this one claimed ahead, for jobs take longer than those before."""
        waiting = self._threads.take_back()
        self.tally.given_back += self._connection.call(
            lambda conn: queue.give_back(conn, [a.job for a in waiting])
        )
        self._held.difference_update(waiting)

    def _take_in(self, wait: float) -> None:
        """Write down what the handlers have said, waiting for the first word so long."""
        said: list[Message] = []
        with suppress(queues.Empty):
            said.append(self._inbox.get(timeout=wait))
            while True:
                said.append(self._inbox.get_nowait())
        for message in said:
            if isinstance(message, tuple):
                self._record_progress(*message)
        results = [m for m in said if isinstance(m, Result)]
        if results:
            record(self._connection, results)
            self._held.difference_update(r.attempt for r in results)
            self._ended += len(results)
            self._untold.extend(results)

    def _record_progress(self, attempt: Attempt, percentage: int | None, message: str | None) -> None:
        """Progress that can't be written is no reason to end anything."""
        with suppress(psycopg.Error):
            status = self._connection.call(
                lambda conn: queue.report_progress(conn, attempt.job, percentage, message), give_up_after=0
            )
            if status != "processing":
                attempt.stop()

    def _report(self, attempt: Attempt, percentage: int | None, message: str | None) -> bool:
        """Pass progress on, at most ten times a second a job. False: the job was cancelled or lost."""
        now = time.monotonic()
        if not attempt.stopped and (now - attempt.reported_at >= _REPORT_EVERY or percentage == 100):
            attempt.reported_at = now
            self._inbox.put((attempt, percentage, message))
        return not attempt.stopped

    def _wake(self) -> None:
        self._inbox.put(None)

    def _tell(self) -> None:
        while self._untold:
            result = self._untold.popleft()
            self.tally.count(result)
            if self._on_result is not None:
                self._on_result(result)

    def _finish_running(self) -> None:
        """The time is up, or the queue is empty: let what runs come to its end, for a while."""
        self._threads.take_back()
        deadline = time.monotonic() + self.options.finish_seconds
        while self._threads.busy and time.monotonic() < deadline and not self._stopping.is_set():
            self._take_in(0.1)
            self._tell()

    def _shut_down(self) -> None:
        """Write down what has ended, stop the rest and give it back, on a new connection whatever the old one does."""
        self._stopping.set()
        self._connection.close()
        self._connection = Connection(self._url, f"{self.name} end", self._stopping)
        self._threads.take_back()
        self._threads.grace = 0
        with suppress(psycopg.Error, WorkerEnds):
            self._take_in(0)
        for attempt in self._held.copy():
            attempt.stop()
        self._threads.close()
        deadline = time.monotonic() + _END_SECONDS
        while self._threads.busy and time.monotonic() < deadline:
            time.sleep(0.02)
        with suppress(psycopg.Error, WorkerEnds):
            self._take_in(0)
        with suppress(psycopg.Error, WorkerEnds):
            self.tally.given_back += self._connection.call(lambda conn: queue.give_back_all(conn, self.name))
        self._connection.close()
        self._heartbeat.end()
        self._heartbeat.join(_END_SECONDS)
