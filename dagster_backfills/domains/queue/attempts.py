"""A worker's attempt at a job, and its result. Not here: storing the result (`results`)."""

import time
import traceback
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from dagster_backfills.domains.queue.errors import (
    InvalidJobInput,
    JobCancelled,
    JobError,
    PermanentJobError,
    UnknownJobType,
)
from dagster_backfills.domains.queue.queue import Job
from dagster_backfills.environment import BadSetting
from dagster_backfills.redact import redact


@dataclass(slots=True, eq=False)
class Attempt:
    """A job that this worker has claimed.

    `stopped_at`: when the worker learned that the job was cancelled or its lease lost. The result is then discarded.
    """

    job: Job
    stopped_at: float | None = None
    reported_at: float = 0.0

    @property
    def stopped(self) -> bool:
        return self.stopped_at is not None

    def stop(self) -> None:
        """Mark the attempt as cancelled or lost."""
        if self.stopped_at is None:
            self.stopped_at = time.monotonic()


@dataclass(frozen=True, slots=True)
class AttemptFailure:
    """Why an attempt failed. Secrets have been removed."""

    kind: str
    message: str
    trace: str
    retryable: bool


@dataclass(slots=True)
class Result:
    """How an attempt ended: with an output or a failure, or with neither if it was stopped.

    `status` is set once the result is stored; `lost` means that the attempt no longer held the job.
    """

    attempt: Attempt
    output: dict[str, Any] | None = None
    failure: AttemptFailure | None = None
    status: Literal["completed", "failed", "retried", "lost", "cancelled", ""] = ""

    @property
    def job(self) -> Job:
        return self.attempt.job


def as_output(result: Any) -> dict[str, Any] | None:
    """Convert a handler's return value to a JSON object. Raises PermanentJobError if that is not possible."""
    if result is None or isinstance(result, dict):
        return result
    if isinstance(result, BaseModel):
        return result.model_dump(mode="json")
    raise PermanentJobError(
        f"The handler returned {type(result).__name__}, not a JSON object.", kind="invalid_output"
    )


def failure_of(error: BaseException) -> AttemptFailure:
    """Describe an exception by kind, message and trace, with secrets removed."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, JobError | UnknownJobType | InvalidJobInput):
        kind, retryable = error.kind, error.retryable
    elif isinstance(error, BadSetting):
        kind, retryable = "configuration", False
    else:
        kind, retryable = type(error).__name__, not isinstance(error, JobCancelled)
    return AttemptFailure(kind, redact(str(error) or type(error).__name__), redact(trace), retryable)
