"""Errors that a person can mend: raised anywhere, turned into words and an exit code by the command line."""


class UserError(Exception):
    """A request that can't be met as it stands: an unknown unit, an option that makes no sense.

    `message` says what is wrong and where, in one sentence; `hint` says what to do about it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class NotUsableError(UserError):
    """The request is fine, but the server, the database or this machine can't serve it now."""
