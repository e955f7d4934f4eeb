"""What a handler is given: its input, a way to report progress, and the order to stop."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from dagster_backfills.domains.queue.errors import JobCancelled

Report = Callable[[int | None, str | None], bool]
Input = TypeVar("Input")


@dataclass(slots=True)
class JobContext(Generic[Input]):
    """One attempt as its handler sees it. `input` is the type's model, or a dict for a type without one."""

    id: UUID
    job_type: str
    attempt: int
    input: Input
    _report: Report

    def progress(self, percentage: float | None, message: str | None = None) -> None:
        """Show how far the work is, 0 to 100, or None where only the message is new.

        Raises JobCancelled where the job is not wanted any more.
        """
        whole = None if percentage is None else max(0, min(100, int(percentage)))
        if not self._report(whole, message):
            raise JobCancelled(f"Job {self.id} was cancelled")
