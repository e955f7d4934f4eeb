"""What a handler receives: the job's input and a way to report progress, which also tells it to stop."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from dagster_backfills.domains.queue.errors import JobCancelled

Report = Callable[[int | None, str | None], bool]
Input = TypeVar("Input")


@dataclass(slots=True)
class JobContext(Generic[Input]):
    """One attempt as its handler sees it. `input` is an instance of the type's model, or a dict if it has none."""

    id: UUID
    job_type: str
    attempt: int
    input: Input
    _report: Report

    def progress(self, percentage: float | None, message: str | None = None) -> None:
        """Report progress from 0 to 100, or None to change only the message.

        Raises JobCancelled if the job was cancelled or the attempt has lost it.
        """
        percent = None if percentage is None else max(0, min(100, int(percentage)))
        if not self._report(percent, message):
            raise JobCancelled(f"Job {self.id} was cancelled")
