"""The worker: claims in batches, runs handlers side by side, and gives back what it can't finish.

Three connections: one claims (here), one keeps the leases and listens, one writes results. What becomes of a job is
the database's decision; this module only brings it there.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import uuid4

import psycopg

from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.errors import UnknownJobType
from dagster_backfills.domains.queue.keeper import HeldJobs, Keeper
from dagster_backfills.domains.queue.link import Link, LinkClosed
from dagster_backfills.domains.queue.outcome import Event, Held, Outcome
from dagster_backfills.domains.queue.recorder import Recorder
from dagster_backfills.domains.queue.registry import Registry
from dagster_backfills.domains.queue.slots import Slots

_QUICK = 0.5
_WAITS_TOO_LONG = 2.0
_REPORT_EVERY = 0.1
_END_SECONDS = 10.0


@dataclass(frozen=True)
class WorkerOptions:
    """Seconds where nothing else is said. `window`: the most short jobs that are claimed ahead."""

    concurrency: int = 4
    idle_seconds: float = 30.0
    max_seconds: float = 3600.0
    poll_seconds: float = 1.0
    grace_seconds: float = 5.0
    finish_seconds: float = 30.0
    window: int = 1000


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

    def count(self, event: Event) -> None:
        """Count one attempt's end."""
        setattr(self, event.status, getattr(self, event.status) + 1)
        if event.status == "completed":
            self.by_type[event.job.job_type] = self.by_type.get(event.job.job_type, 0) + 1


class Worker:
    """One process's worth of work on the queue. `run` returns when the queue stayed empty or the time is up."""

    def __init__(
        self,
        url: str,
        registry: Registry,
        options: WorkerOptions | None = None,
        *,
        name: str = "",
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.options = options or WorkerOptions()
        self.name = name or f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:6]}"
        self.tally = Tally()
        self._registry, self._on_event = registry, on_event
        self._wake, self._closing, self._stopping = threading.Event(), threading.Event(), threading.Event()
        self._held = HeldJobs()
        self._link = Link(url, self.name, self._stopping)
        self._progress_link = Link(url, f"{self.name} progress", self._closing)
        self._last_link = Link(url, f"{self.name} end", self._closing)
        self._keeper = Keeper(url, self.name, self._held, self._wake, self._closing)
        self._recorder = Recorder(url, self.name, self._held, self._wake, self._closing)
        self._slots = Slots(
            self.options.concurrency, registry, self._report, self._finished, self.options.grace_seconds
        )
        self._window = self.options.concurrency
        self._claimed = self._ended = 0
        self._ended_lock = threading.Lock()
        self._claimed_at = self._begun = time.monotonic()

    def stop(self) -> None:
        """Ask the worker to end now and give back what it holds. May be called from any thread."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> Tally:
        """Work. Whatever ends it, an exception that a signal raised included, its jobs go back to the queue."""
        self._begun = time.monotonic()
        self._keeper.start()
        self._recorder.start()
        try:
            with suppress(LinkClosed):
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
            self._wake.clear()
            for thread in (self._keeper, self._recorder):
                if thread.error is not None:
                    raise thread.error
            self._slots.replace_deaf()
            self._tell()
            claimed = self._claim()
            now = time.monotonic()
            if claimed or len(self._held):
                busy_at = now
            left = min(busy_at + self.options.idle_seconds, self._begun + self.options.max_seconds) - now
            if left <= 0:
                return
            if not claimed:
                self._wake.wait(min(self.options.poll_seconds, left))

    def _claim(self) -> int:
        unfinished = self._claimed - self._ended
        if time.monotonic() - self._claimed_at > _WAITS_TOO_LONG and self._slots.waiting:
            self._give_back_surplus()
        if self._window > self.options.concurrency and unfinished > self._window // 2:
            return 0
        room = self._window - unfinished
        if room <= 0:
            return 0
        time_left = self._begun + self.options.max_seconds - time.monotonic()
        jobs = self._link.call(lambda conn: queue.claim(conn, self.name, room), give_up_after=time_left)
        if not jobs:
            return 0
        now = time.monotonic()
        held = [Held(job, now) for job in jobs]
        self._claimed += len(held)
        self._held.add(held)
        self._slots.put(held)
        if any(self._is_long(h) for h in held):
            self._give_back_surplus()
        elif len(held) == room and now - self._claimed_at < _QUICK:
            self._window = min(self._window * 2, max(self.options.window, self.options.concurrency))
        self._claimed_at = now
        return len(jobs)

    def _is_long(self, held: Held) -> bool:
        with suppress(UnknownJobType):
            return self._registry.get(held.job.job_type).isolation == "process"
        return False

    def _give_back_surplus(self) -> None:
        """Leave to other workers what this one claimed ahead and can't start soon; claim no more than it can run."""
        self._window = self.options.concurrency
        waiting = self._slots.take_back()
        running = self._claimed - self._ended - len(waiting)
        free = max(0, self.options.concurrency - running)
        self._slots.put(waiting[:free])
        surplus = waiting[free:]
        if surplus:
            self.tally.given_back += self._link.call(
                lambda conn: queue.give_back(conn, [h.job for h in surplus])
            )
            self._held.remove(surplus)
            with self._ended_lock:
                self._ended += len(surplus)

    def _report(self, held: Held, percentage: int, message: str | None) -> bool:
        """Write progress down, at most ten times a second a job. False: the job was cancelled or lost."""
        now = time.monotonic()
        if held.stopped or (now - held.reported_at < _REPORT_EVERY and percentage < 100):
            return not held.stopped
        held.reported_at = now
        try:
            status = self._progress_link.call(
                lambda conn: queue.report_progress(conn, held.job, percentage, message), give_up_after=0
            )
        except (psycopg.OperationalError, psycopg.InterfaceError, LinkClosed):
            return not held.stopped
        if status != "processing":
            self._held.stop(held.job.id)
        return not held.stopped

    def _finished(self, outcome: Outcome) -> None:
        with self._ended_lock:
            self._ended += 1
            if outcome.stopped:
                self.tally.stopped += 1
            if self._claimed - self._ended <= self._window // 2:
                self._wake.set()
        self._recorder.inbox.put(outcome)

    def _tell(self) -> None:
        events = self._recorder.events
        while events:
            event = events.popleft()
            self.tally.count(event)
            if self._on_event is not None:
                self._on_event(event)

    def _finish_running(self) -> None:
        """The time is up, or the queue is empty: let what runs come to its end, for a while."""
        self._slots.take_back()
        deadline = time.monotonic() + self.options.finish_seconds
        while self._slots.busy and time.monotonic() < deadline and not self._stopping.is_set():
            self._tell()
            self._wake.clear()
            self._wake.wait(0.1)

    def _shut_down(self) -> None:
        self._stopping.set()
        self._link.abandon()
        self._slots.grace = 0
        self._slots.take_back()
        for held in self._held.all():
            self._held.stop(held.job.id)
        self._slots.close()
        deadline = time.monotonic() + _END_SECONDS
        while self._slots.busy and time.monotonic() < deadline:
            time.sleep(0.02)
        self._recorder.inbox.put(None)
        self._recorder.join(_END_SECONDS)
        with suppress(psycopg.Error, LinkClosed):
            self.tally.given_back += self._last_link.call(
                lambda conn: queue.give_back_all(conn, self.name), give_up_after=_END_SECONDS
            )
        self._closing.set()
        self._last_link.close()
        self._progress_link.close()
