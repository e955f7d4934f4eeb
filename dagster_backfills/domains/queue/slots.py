"""The threads that run handlers, so many side by side. Not here: which job comes next."""

import queue as queues
import threading
import time
from collections.abc import Callable

from dagster_backfills.domains.queue.context import JobContext
from dagster_backfills.domains.queue.errors import JobCancelled, UnknownJobType
from dagster_backfills.domains.queue.outcome import Failed, Held, Outcome, as_output, failure_of
from dagster_backfills.domains.queue.process import run_in_process
from dagster_backfills.domains.queue.registry import Registry

Report = Callable[[Held, int, str | None], bool]


class Slots:
    """`size` threads that take attempts from one queue and hand on their outcomes.

    A thread whose handler goes on for `grace` seconds after its job was cancelled is left alone and replaced; what it
    does counts for nothing.
    """

    def __init__(
        self, size: int, registry: Registry, report: Report, done: Callable[[Outcome], None], grace: float
    ):
        self.size, self.grace = size, grace
        self._registry, self._report, self._done = registry, report, done
        self._inbox: queues.SimpleQueue[Held | None] = queues.SimpleQueue()
        self._slots = [self._new_slot() for _ in range(size)]

    @property
    def waiting(self) -> int:
        """Attempts that no thread has taken yet."""
        return self._inbox.qsize()

    @property
    def busy(self) -> int:
        """Threads that run a handler right now."""
        return sum(slot.held is not None for slot in self._slots)

    def put(self, held: list[Held]) -> None:
        for h in held:
            self._inbox.put(h)

    def take_back(self) -> list[Held]:
        """Everything that no thread has taken yet."""
        back: list[Held] = []
        while True:
            try:
                held = self._inbox.get_nowait()
            except queues.Empty:
                return back
            if held is not None:
                back.append(held)

    def replace_deaf(self) -> None:
        """Leave threads alone that do not see that their job was cancelled, and start others in their place."""
        for n, slot in enumerate(self._slots):
            held = slot.held
            if (
                held
                and held.stopped
                and not slot.in_process
                and time.monotonic() - held.stopped_at > self.grace
            ):
                slot.abandoned = True
                self._slots[n] = self._new_slot()
                self._done(Outcome(held, stopped=True))

    def close(self) -> None:
        """Let every thread end once it is free."""
        for _ in self._slots:
            self._inbox.put(None)

    def _new_slot(self) -> "_Slot":
        slot = _Slot(self._inbox, self._run, self._done)
        slot.start()
        return slot

    def _run(self, held: Held, slot: "_Slot") -> Outcome:
        if held.stopped:
            return Outcome(held, stopped=True)
        job = held.job
        try:
            kind = self._registry.get(job.job_type)
            given = kind.parse(job.input_data)
            if kind.isolation == "process":
                slot.in_process = True
                result = run_in_process(kind, held, lambda p, m: self._report(held, p, m), lambda: self.grace)
                return Outcome(held, failure=result) if isinstance(result, Failed) else Outcome(held, result)
            context = JobContext(
                job.id, job.job_type, job.attempt, given, lambda p, m: self._report(held, p, m)
            )
            return Outcome(held, as_output(kind.load_handler()(context)))
        except JobCancelled as error:
            return Outcome(held, stopped=True) if held.stopped else Outcome(held, failure=failure_of(error))
        except UnknownJobType as error:
            return Outcome(held, failure=failure_of(error, trace=""))
        except Exception as error:
            return Outcome(held, failure=failure_of(error))


class _Slot(threading.Thread):
    def __init__(
        self,
        inbox: "queues.SimpleQueue[Held | None]",
        run: Callable[[Held, "_Slot"], Outcome],
        done: Callable[[Outcome], None],
    ) -> None:
        super().__init__(name="jobs-slot", daemon=True)
        self._inbox, self._run_one, self._done = inbox, run, done
        self.held: Held | None = None
        self.in_process = False
        self.abandoned = False

    def run(self) -> None:
        while (held := self._inbox.get()) is not None:
            self.in_process = False
            self.held = held
            held.started = True
            outcome = self._run_one(held, self)
            self.held = None
            if self.abandoned:
                return
            self._done(outcome)
