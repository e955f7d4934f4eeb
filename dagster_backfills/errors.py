"""Errors that a person can mend: raised anywhere, turned into words and an exit code by the command line."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class UserError(Exception):
    """A request that can't be met as it stands: an unknown unit, an option that makes no sense.

    `message` says what is wrong and where, in one sentence; `hint` says what to do about it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        stop = "" if not self.hint or self.message.endswith((".", "?", "!", ":", "…")) else "."
        return f"{self.message}{stop} {self.hint}".rstrip()


class NotUsableError(UserError):
    """The request is fine, but the server, the database or this machine can't serve it now."""


def close_to(wanted: str, there: Iterable[str]) -> str:
    """Words for a hint: what comes close to a name that is none, or what there is."""
    names = sorted(there)
    close = get_close_matches(wanted, names, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {', '.join(close)}?"
    return f"There are {', '.join(names)}." if names else "There are none."


@contextmanager
def located(where: str) -> Iterator[None]:
    """A UserError that is raised within gets its place: a file and line, say."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error.message}", error.hint) from error
