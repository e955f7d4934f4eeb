"""How an attempt ended, as the worker passes it on. Not here: writing it down."""

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
from dagster_backfills.domains.queue.redact import redact


@dataclass(slots=True)
class Held:
    """A claimed attempt within this worker. `stopped`: it was cancelled or lost, and nothing it does counts."""

    job: Job
    claimed_at: float
    started: bool = False
    stopped: bool = False
    stopped_at: float = 0.0
    reported_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """Why an attempt failed, free of secrets."""

    kind: str
    message: str
    trace: str
    retryable: bool


@dataclass(slots=True)
class Outcome:
    """What became of an attempt: its output, its failure, or nothing where it was stopped."""

    held: Held
    output: Any = None
    failure: Failed | None = None
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """An attempt's end as the database accepted it."""

    job: Job
    status: Literal["completed", "failed", "retried", "lost"]
    output: Any = None
    failure: Failed | None = None


def as_output(result: Any) -> dict[str, Any] | None:
    """A handler's result as JSON's own types. Raises PermanentJobError for what can't be an output."""
    if result is None or isinstance(result, dict):
        return result
    if isinstance(result, BaseModel):
        return result.model_dump(mode="json")
    raise PermanentJobError(
        f"The handler returned {type(result).__name__}, not a JSON object.", kind="invalid_output"
    )


def failure_of(error: BaseException, trace: str | None = None) -> Failed:
    """The record of an exception: its kind, message and trace, with secrets taken out."""
    if isinstance(error, JobError):
        kind, retryable = error.kind, error.retryable
    elif isinstance(error, UnknownJobType):
        kind, retryable = "unknown_type", False
    elif isinstance(error, InvalidJobInput):
        kind, retryable = "invalid_input", False
    else:
        kind, retryable = type(error).__name__, not isinstance(error, JobCancelled)
    if trace is None:
        trace = "".join(traceback.format_exception(error))
    return Failed(kind, redact(str(error) or type(error).__name__), redact(trace), retryable)
