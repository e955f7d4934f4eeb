"""An attempt at a job within a worker, and how it ended. Not here: writing that down."""

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
    """A claimed job within this worker. `stopped_at`: since when it is cancelled or lost, and counts for nothing."""

    job: Job
    stopped_at: float | None = None
    reported_at: float = 0.0

    @property
    def stopped(self) -> bool:
        return self.stopped_at is not None

    def stop(self) -> None:
        """The job was cancelled or lost."""
        if self.stopped_at is None:
            self.stopped_at = time.monotonic()


@dataclass(frozen=True, slots=True)
class AttemptFailure:
    """Why an attempt failed, free of secrets."""

    kind: str
    message: str
    trace: str
    retryable: bool


@dataclass(slots=True)
class Result:
    """How an attempt ended: with an output, a failure, or neither where it was stopped.

    `status` is what the database made of it; `lost` where the attempt did not hold the job any more.
    """

    attempt: Attempt
    output: dict[str, Any] | None = None
    failure: AttemptFailure | None = None
    status: Literal["completed", "failed", "retried", "lost", "stopped", ""] = ""

    @property
    def job(self) -> Job:
        return self.attempt.job


def as_output(result: Any) -> dict[str, Any] | None:
    """A handler's result as JSON's own types. Raises PermanentJobError for what can't be an output."""
    if result is None or isinstance(result, dict):
        return result
    if isinstance(result, BaseModel):
        return result.model_dump(mode="json")
    raise PermanentJobError(
        f"The handler returned {type(result).__name__}, not a JSON object.", kind="invalid_output"
    )


def failure_of(error: BaseException) -> AttemptFailure:
    """The record of an exception: its kind, message and trace, with secrets taken out."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, JobError | UnknownJobType | InvalidJobInput):
        kind, retryable = error.kind, error.retryable
    elif isinstance(error, BadSetting):
        kind, retryable = "configuration", False
    else:
        kind, retryable = type(error).__name__, not isinstance(error, JobCancelled)
    return AttemptFailure(kind, redact(str(error) or type(error).__name__), redact(trace), retryable)
