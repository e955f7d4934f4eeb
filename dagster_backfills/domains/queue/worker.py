"""The worker: one loop that claims jobs, passes them to threads, and stores their results.

It has two connections: this loop's and the heartbeat's. All state changes of a job are decided in the database.
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
from dagster_backfills.domains.queue.connection import Connection, WorkerStopping
from dagster_backfills.domains.queue.heartbeat import Heartbeat
from dagster_backfills.domains.queue.registry import Registry
from dagster_backfills.domains.queue.results import store_results
from dagster_backfills.domains.queue.threads import HandlerThreads

_PREFETCH_SECONDS = 0.5
_MAX_PREFETCH_AGE = 2.0
_REPORT_INTERVAL = 0.1
_SHUTDOWN_SECONDS = 10.0
# A handler's progress or result; None only wakes the loop.
Message = tuple[Attempt, int | None, str | None] | Result | None


@dataclass(frozen=True)
class WorkerOptions:
    """Durations are in seconds. `prefetch` limits how many short jobs are claimed ahead."""

    concurrency: int = 4
    idle_seconds: float = 30.0
    max_seconds: float = 3600.0
    poll_seconds: float = 1.0
    grace_seconds: float = 5.0
    finish_seconds: float = 30.0
    prefetch: int = 1000


@dataclass
class Tally:
    """What a worker did. `lost`: attempts that no longer held their job when they ended."""

    completed: int = 0
    failed: int = 0
    retried: int = 0
    cancelled: int = 0
    lost: int = 0
    given_back: int = 0
    seconds: float = 0.0
    by_type: dict[str, int] = field(default_factory=dict)

    def count(self, result: Result) -> None:
        """Count one result."""
        setattr(self, result.status, getattr(self, result.status) + 1)
        if result.status == "completed":
            self.by_type[result.job.job_type] = self.by_type.get(result.job.job_type, 0) + 1


class Worker:
    """Processes jobs until the queue has stayed empty or the time limit is reached."""

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
        self._unreported: deque[Result] = deque()
        self._held: set[Attempt] = set()  # shared with the heartbeat
        self._connection = Connection(url, self.name, self._stopping)
        self._heartbeat = Heartbeat(url, self.name, self._held, self._wake)
        self._threads = HandlerThreads(
            self.options.concurrency, registry, self._report, self._inbox.put, self.options.grace_seconds
        )
        self._ended = 0  # since the last claim
        self._started = self._claimed_at = time.monotonic()

    def stop(self) -> None:
        """Ask the worker to stop now and return its jobs to the queue. May be called from any thread."""
        self._stopping.set()
        self._wake()

    def run(self) -> Tally:
        """Process jobs. However it ends, also by an exception from a signal handler, jobs return to the queue."""
        self._started = time.monotonic()
        self._heartbeat.start()
        try:
            with suppress(WorkerStopping):
                self._work()
                self._finish_running()
        finally:
            self._shut_down()
            self.tally.seconds = time.monotonic() - self._started
        self._report_results()
        return self.tally

    def _work(self) -> None:
        busy_at = self._started
        while not self._stopping.is_set():
            if self._heartbeat.error is not None:
                raise self._heartbeat.error
            self._threads.replace_unresponsive()
            claimed = self._claim()
            now = time.monotonic()
            if claimed or len(self._held):
                busy_at = now
            left = min(busy_at + self.options.idle_seconds, self._started + self.options.max_seconds) - now
            if left <= 0:
                return
            self._process_messages(0 if claimed else min(self.options.poll_seconds, left))
            self._report_results()

    def _claim(self) -> int:
        """Claim jobs for free threads, and half a second's work ahead at the rate since the last claim."""
        concurrency, now = self.options.concurrency, time.monotonic()
        since = max(now - self._claimed_at, 0.001)
        if since > _MAX_PREFETCH_AGE and self._threads.waiting:
            self._give_back_waiting()
        ahead = min(self.options.prefetch, int(self._ended * _PREFETCH_SECONDS / since))
        target = max(concurrency, ahead)
        if len(self._held) >= concurrency and len(self._held) > target // 2:
            return 0
        room = target - len(self._held)
        time_left = self._started + self.options.max_seconds - now
        jobs = self._connection.call(lambda conn: queue.claim(conn, self.name, room), give_up_after=time_left)
        if jobs:
            self._claimed_at, self._ended = time.monotonic(), 0
            attempts = [Attempt(job) for job in jobs]
            self._held.update(attempts)
            self._threads.put(attempts)
        return len(jobs)

    def _give_back_waiting(self) -> None:
        """Return the jobs that were claimed ahead, for other workers: the current jobs take longer than expected."""
        waiting = self._threads.take_back()
        self.tally.given_back += self._connection.call(
            lambda conn: queue.give_back(conn, [a.job for a in waiting])
        )
        self._held.difference_update(waiting)

    def _process_messages(self, wait: float) -> None:
        """Store the progress and results of the handlers. Wait up to `wait` seconds for the first message."""
        messages: list[Message] = []
        with suppress(queues.Empty):
            messages.append(self._inbox.get(timeout=wait))
            while True:
                messages.append(self._inbox.get_nowait())
        for message in messages:
            if isinstance(message, tuple):
                self._store_progress(*message)
        results = [m for m in messages if isinstance(m, Result)]
        if results:
            store_results(self._connection, results)
            self._held.difference_update(r.attempt for r in results)
            self._ended += len(results)
            self._unreported.extend(results)

    def _store_progress(self, attempt: Attempt, percentage: int | None, message: str | None) -> None:
        """Store progress. Database errors are ignored: the job goes on without it."""
        with suppress(psycopg.Error):
            status = self._connection.call(
                lambda conn: queue.report_progress(conn, attempt.job, percentage, message), give_up_after=0
            )
            if status != "processing":
                attempt.stop()

    def _report(self, attempt: Attempt, percentage: int | None, message: str | None) -> bool:
        """Queue progress, at most ten times a second for each job. Returns False if the job was cancelled or lost."""
        now = time.monotonic()
        if not attempt.stopped and (now - attempt.reported_at >= _REPORT_INTERVAL or percentage == 100):
            attempt.reported_at = now
            self._inbox.put((attempt, percentage, message))
        return not attempt.stopped

    def _wake(self) -> None:
        self._inbox.put(None)

    def _report_results(self) -> None:
        while self._unreported:
            result = self._unreported.popleft()
            self.tally.count(result)
            if self._on_result is not None:
                self._on_result(result)

    def _finish_running(self) -> None:
        """Wait up to `finish_seconds` for running handlers, once the queue is empty or the time is up."""
        self._threads.take_back()
        deadline = time.monotonic() + self.options.finish_seconds
        while self._threads.busy and time.monotonic() < deadline and not self._stopping.is_set():
            self._process_messages(0.1)
            self._report_results()

    def _shut_down(self) -> None:
        """Store finished results, stop the other jobs and return them to the queue.

        Uses a new connection, since the old one may be broken or busy.
        """
        self._stopping.set()
        self._connection.close()
        self._connection = Connection(self._url, f"{self.name} end", self._stopping)
        self._threads.take_back()
        self._threads.grace = 0
        with suppress(psycopg.Error, WorkerStopping):
            self._process_messages(0)
        for attempt in self._held.copy():
            attempt.stop()
        self._threads.close()
        deadline = time.monotonic() + _SHUTDOWN_SECONDS
        while self._threads.busy and time.monotonic() < deadline:
            time.sleep(0.02)
        with suppress(psycopg.Error, WorkerStopping):
            self._process_messages(0)
        with suppress(psycopg.Error, WorkerStopping):
            self.tally.given_back += self._connection.call(lambda conn: queue.give_back_all(conn, self.name))
        self._connection.close()
        self._heartbeat.stop()
        self._heartbeat.join(_SHUTDOWN_SECONDS)
