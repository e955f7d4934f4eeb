"""What a handler is given: its input, a way to report progress, and the order to stop."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from dagster_backfills.domains.queue.errors import JobCancelled

Report = Callable[[int, str | None], bool]


class JobContext:
    """One attempt as its handler sees it. `input` is the type's model, or a dict for a type without one."""

    __slots__ = ("_report", "attempt", "id", "input", "job_type")

    def __init__(self, job_id: UUID, job_type: str, attempt: int, input_data: Any, report: Report) -> None:
        self.id = job_id
        self.job_type = job_type
        self.attempt = attempt
        self.input = input_data
        self._report = report

    def progress(self, percentage: float, message: str | None = None) -> None:
        """Show how far the work is, 0 to 100. Raises JobCancelled where the job is not wanted any more."""
        if not self._report(max(0, min(100, int(percentage))), message):
            raise JobCancelled(f"Job {self.id} was cancelled")
