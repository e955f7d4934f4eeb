"""Errors that a handler raises. Whether the job is then retried is decided in the database."""

from dagster_backfills.errors import UserError


class JobError(Exception):
    """An attempt failed. The job is retried while it has retries left. `kind` is stored in `error_data`."""

    kind = "error"
    retryable = True

    def __init__(self, message: str, *, kind: str = "", hint: str = "") -> None:
        super().__init__(f"{message} {hint}".rstrip())
        self.kind = kind or type(self).kind


class PermanentJobError(JobError):
    """A failure that a retry would not fix: invalid input, missing credentials, a forbidden URL."""

    kind = "permanent"
    retryable = False


def http_error(status: int, message: str, *, kind: str, hint: str = "") -> JobError:
    """The error for an HTTP status: retryable if the server is busy or broken, else permanent."""
    retryable = status in (408, 409, 425, 429) or status >= 500
    return (JobError if retryable else PermanentJobError)(message, kind=kind, hint=hint)


class JobCancelled(Exception):
    """Raised by a progress report once the job was cancelled, or once the attempt has lost it."""


class UnknownJobType(UserError):
    """No handler is registered for the type. `retryable`: a module failed to load, and may be the one that has it."""

    kind = "unknown_type"

    def __init__(self, message: str, hint: str = "", *, retryable: bool = False) -> None:
        super().__init__(message, hint)
        self.retryable = retryable


class InvalidJobInput(UserError):
    """The input does not match the type's model. The message names every invalid field."""

    kind = "invalid_input"
    retryable = False
