"""How a handler says what went wrong. Not here: what becomes of the job, which the database decides."""

from dagster_backfills.errors import UserError


class JobError(Exception):
    """An attempt that failed, with a `kind` for the record. It is retried while retries are left."""

    kind = "error"
    retryable = True

    def __init__(self, message: str, *, kind: str = "", hint: str = "") -> None:
        super().__init__(f"{message} {hint}".rstrip())
        self.kind = kind or type(self).kind


class PermanentJobError(JobError):
    """An attempt that no retry would help: a bad input, missing credentials, a forbidden address."""

    kind = "permanent"
    retryable = False


def refused(status: int, message: str, *, kind: str, hint: str = "") -> JobError:
    """An HTTP answer that is none of success. Another attempt may help where the server is busy, or broken."""
    passes = status in (408, 409, 425, 429) or status >= 500
    return (JobError if passes else PermanentJobError)(message, kind=kind, hint=hint)


class JobCancelled(Exception):
    """Raised by a progress report once the job was cancelled, or its attempt lost the job."""


class UnknownJobType(UserError):
    """A type that no handler is registered for. `retryable`: its module may be what can't be used now."""

    kind = "unknown_type"

    def __init__(self, message: str, hint: str = "", *, retryable: bool = False) -> None:
        super().__init__(message, hint)
        self.retryable = retryable


class InvalidJobInput(UserError):
    """An input that does not fit its type. The message names every field that is wrong."""

    kind = "invalid_input"
    retryable = False
