"""The thread that writes results down, many in one statement. Not here: what becomes of a failed job."""

import queue as queues
import threading
import time
from collections import deque
from typing import Any

import psycopg

from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.keeper import HeldJobs
from dagster_backfills.domains.queue.link import Link, LinkClosed
from dagster_backfills.domains.queue.outcome import Event, Failed, Outcome, failure_of

_MOST = 1000
_GATHER_SECONDS = 0.002


class Recorder(threading.Thread):
    """Takes outcomes as they come; while one statement is under way, the next batch gathers."""

    def __init__(
        self, url: str, name: str, held: HeldJobs, wake: threading.Event, closing: threading.Event
    ) -> None:
        super().__init__(name="jobs-recorder", daemon=True)
        self._link = Link(url, f"{name} recorder", closing)
        self._held, self._wake = held, wake
        self.inbox: queues.SimpleQueue[Outcome | None] = queues.SimpleQueue()
        self.events: deque[Event] = deque()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while (batch := self._gather()) is not None:
                self._record(batch)
                self._held.remove([o.held for o in batch])
                self._wake.set()
        except LinkClosed:
            pass
        except Exception as error:
            self.error = error
            self._wake.set()
        finally:
            self._link.close()

    def _gather(self) -> list[Outcome] | None:
        first = self.inbox.get()
        if first is None:
            return None
        batch = [first]
        if len(self._held) > 1:
            time.sleep(_GATHER_SECONDS)
        while len(batch) < _MOST:
            try:
                more = self.inbox.get_nowait()
            except queues.Empty:
                break
            if more is None:
                self.inbox.put(None)
                break
            batch.append(more)
        return batch

    def _record(self, batch: list[Outcome]) -> None:
        done = [o for o in batch if o.failure is None and not o.stopped]
        if done:
            try:
                self._complete(done)
            except (psycopg.DataError, TypeError, ValueError):
                # One output that is no JSON must not fail the others.
                for one in done:
                    self._complete_alone(one)
        for o in batch:
            if o.failure is not None and not o.stopped:
                self._fail(o, o.failure)

    def _complete(self, done: list[Outcome]) -> None:
        pairs = [(o.held.job, o.output) for o in done]
        accepted = self._link.call(lambda conn: queue.complete(conn, pairs))
        for o in done:
            status: Any = "completed" if o.held.job.id in accepted else "lost"
            self.events.append(Event(o.held.job, status, o.output))

    def _complete_alone(self, outcome: Outcome) -> None:
        try:
            self._complete([outcome])
        except (psycopg.DataError, TypeError, ValueError) as error:
            reason = failure_of(error)
            self._fail(outcome, Failed("invalid_output", reason.message, reason.trace, retryable=False))

    def _fail(self, outcome: Outcome, failure: Failed) -> None:
        job = outcome.held.job
        status = self._link.call(
            lambda conn: queue.fail(
                conn, job, failure.kind, failure.message, failure.trace, failure.retryable
            )
        )
        ended: Any = {"pending": "retried", "failed": "failed"}.get(status or "", "lost")
        self.events.append(Event(job, ended, failure=failure))
