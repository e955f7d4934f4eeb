"""The threads that run handlers, so many side by side. Not here: which job comes next."""

import queue as queues
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from dagster_backfills.domains.queue.attempts import Attempt, AttemptFailure, Result, as_output, failure_of
from dagster_backfills.domains.queue.context import JobContext
from dagster_backfills.domains.queue.errors import InvalidJobInput, JobCancelled
from dagster_backfills.domains.queue.process import run_in_process
from dagster_backfills.domains.queue.registry import Registry

Report = Callable[[Attempt, int | None, str | None], bool]


@dataclass
class _Place:
    """Where a thread works: at which attempt, whether in a process, and whether another thread is there by now."""

    attempt: Attempt | None = None
    in_process: bool = False
    abandoned: bool = False


class HandlerThreads:
    """`size` threads that take attempts from one queue and hand on their results.

    A thread whose handler goes on for `grace` seconds after its job was cancelled is left alone and replaced; what it
    does counts for nothing.
    """

    def __init__(
        self, size: int, registry: Registry, report: Report, done: Callable[[Result], None], grace: float
    ) -> None:
        self.grace = grace
        self._registry, self._report, self._done = registry, report, done
        self._inbox: queues.SimpleQueue[Attempt | None] = queues.SimpleQueue()
        self._places = [self._new_place() for _ in range(size)]

    @property
    def waiting(self) -> int:
        """Attempts that no thread has taken yet."""
        return self._inbox.qsize()

    @property
    def busy(self) -> bool:
        """Whether a handler runs right now."""
        return any(place.attempt is not None for place in self._places)

    def put(self, attempts: list[Attempt]) -> None:
        """Let these be run as threads become free."""
        for attempt in attempts:
            self._inbox.put(attempt)

    def take_back(self) -> list[Attempt]:
        """Everything that no thread has taken yet."""
        back: list[Attempt] = []
        with suppress(queues.Empty):
            while attempt := self._inbox.get_nowait():
                back.append(attempt)
        return back

    def replace_deaf(self) -> None:
        """Leave threads alone that do not see that their job was cancelled, and start others in their place."""
        for n, place in enumerate(self._places):
            attempt = place.attempt
            if attempt is None or attempt.stopped_at is None or place.in_process:
                continue
            if time.monotonic() - attempt.stopped_at > self.grace:
                place.abandoned = True
                self._places[n] = self._new_place()
                self._done(Result(attempt))

    def close(self) -> None:
        """Let every thread end once it is free."""
        for _ in self._places:
            self._inbox.put(None)

    def _new_place(self) -> _Place:
        place = _Place()
        threading.Thread(target=self._serve, args=[place], name="jobs-handler", daemon=True).start()
        return place

    def _serve(self, place: _Place) -> None:
        while (attempt := self._inbox.get()) is not None:
            place.in_process, place.attempt = False, attempt
            result = self._run(attempt, place)
            if place.abandoned:
                return
            self._done(result)
            place.attempt = None

    def _run(self, attempt: Attempt, place: _Place) -> Result:
        if attempt.stopped:
            return Result(attempt)
        try:
            found = self._handle(attempt, place)
            return (
                Result(attempt, failure=found)
                if isinstance(found, AttemptFailure)
                else Result(attempt, found)
            )
        except JobCancelled as error:
            return Result(attempt) if attempt.stopped else Result(attempt, failure=failure_of(error))
        # A handler of somebody's own may call sys.exit(): that ends its job and not the thread.
        except (Exception, SystemExit) as error:
            return Result(attempt, failure=failure_of(error))

    def _handle(self, attempt: Attempt, place: _Place) -> dict | AttemptFailure | None:
        job = attempt.job
        kind = self._registry.get(job.job_type)
        if isinstance(job.input_data, str):
            raise InvalidJobInput(
                f"{kind.name}: the input can't be read: it is nested too deep, or has a number of too many digits."
            )
        given = kind.parse(job.input_data)

        def report(percentage: int | None, message: str | None) -> bool:
            return self._report(attempt, percentage, message)

        if kind.isolation == "process":
            place.in_process = True
            return run_in_process(kind, attempt, report, lambda: self.grace)
        return as_output(kind.handler(JobContext(job.id, job.job_type, job.attempt, given, report)))
