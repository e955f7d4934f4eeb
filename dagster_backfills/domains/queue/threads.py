"""A pool of threads that run handlers. Not here: claiming jobs (`worker`)."""

import queue as queues
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from dagster_backfills.domains.queue.attempts import Attempt, AttemptFailure, Result, as_output, failure_of
from dagster_backfills.domains.queue.context import JobContext
from dagster_backfills.domains.queue.errors import InvalidJobInput
from dagster_backfills.domains.queue.process import run_in_process
from dagster_backfills.domains.queue.registry import Registry

Report = Callable[[Attempt, int | None, str | None], bool]


@dataclass
class _Slot:
    """One slot of the pool: its current attempt. `abandoned`: another thread has taken over the slot."""

    attempt: Attempt | None = None
    in_process: bool = False
    abandoned: bool = False


class HandlerThreads:
    """`size` threads that take attempts from one queue and pass their results to `done`.

    A thread whose handler is still running `grace` seconds after its job was cancelled is abandoned and replaced. Its
    result is discarded.
    """

    def __init__(
        self, size: int, registry: Registry, report: Report, done: Callable[[Result], None], grace: float
    ) -> None:
        self.grace = grace
        self._registry, self._report, self._done = registry, report, done
        self._inbox: queues.SimpleQueue[Attempt | None] = queues.SimpleQueue()
        self._slots = [self._new_slot() for _ in range(size)]

    @property
    def waiting(self) -> int:
        """The number of attempts that no thread has started."""
        return self._inbox.qsize()

    @property
    def busy(self) -> bool:
        """Whether a handler is running."""
        return any(slot.attempt is not None for slot in self._slots)

    def put(self, attempts: list[Attempt]) -> None:
        """Queue attempts for the next free threads."""
        for attempt in attempts:
            self._inbox.put(attempt)

    def take_back(self) -> list[Attempt]:
        """Remove and return the attempts that no thread has started."""
        attempts: list[Attempt] = []
        with suppress(queues.Empty):
            while attempt := self._inbox.get_nowait():
                attempts.append(attempt)
        return attempts

    def replace_unresponsive(self) -> None:
        """Abandon threads whose handler ignores a cancellation, and start new ones in their place."""
        for n, slot in enumerate(self._slots):
            attempt = slot.attempt
            if attempt is None or attempt.stopped_at is None or slot.in_process:
                continue
            if time.monotonic() - attempt.stopped_at > self.grace:
                slot.abandoned = True
                self._slots[n] = self._new_slot()
                self._done(Result(attempt))

    def close(self) -> None:
        """Let each thread exit once it is free."""
        for _ in self._slots:
            self._inbox.put(None)

    def _new_slot(self) -> _Slot:
        slot = _Slot()
        threading.Thread(target=self._serve, args=[slot], name="jobs-handler", daemon=True).start()
        return slot

    def _serve(self, slot: _Slot) -> None:
        while (attempt := self._inbox.get()) is not None:
            slot.in_process, slot.attempt = False, attempt
            result = self._run(attempt, slot)
            if slot.abandoned:
                return
            self._done(result)
            slot.attempt = None

    def _run(self, attempt: Attempt, slot: _Slot) -> Result:
        if attempt.stopped:
            return Result(attempt)
        try:
            output = self._handle(attempt, slot)
        # sys.exit() in a handler ends the job, not the thread.
        except (Exception, SystemExit) as error:
            output = failure_of(error)
        return (
            Result(attempt, failure=output) if isinstance(output, AttemptFailure) else Result(attempt, output)
        )

    def _handle(self, attempt: Attempt, slot: _Slot) -> dict | AttemptFailure | None:
        job = attempt.job
        kind = self._registry.get(job.job_type)
        if isinstance(job.input_data, str):
            raise InvalidJobInput(
                f"{kind.name}: the input can't be read: it is nested too deeply, or a number has too many digits."
            )
        input_data = kind.parse(job.input_data)

        def report(percentage: int | None, message: str | None) -> bool:
            return self._report(attempt, percentage, message)

        if kind.isolation == "process":
            slot.in_process = True
            return run_in_process(kind, attempt, report, lambda: self.grace)
        return as_output(kind.handler(JobContext(job.id, job.job_type, job.attempt, input_data, report)))
