"""Errors that the user can fix. Any layer raises them; the command line prints them and sets the exit code."""

from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches


class UserError(Exception):
    """An invalid request, such as an unknown unit or contradictory options.

    `message` says in one sentence what is wrong and where. `hint` says how to fix it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        stop = "" if not self.hint or self.message.endswith((".", "?", "!", ":", "…")) else "."
        return f"{self.message}{stop} {self.hint}".rstrip()


class NotUsableError(UserError):
    """The request is valid, but the server, the database or this machine can't serve it now."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the known names most similar to it, or up to twenty known names."""
    names = sorted(known)
    if close := similar(name, names):
        return f"Did you mean {', '.join(close)}?"
    more = f" and {len(names) - 20:,} more" if len(names) > 20 else ""
    return f"There are {', '.join(names[:20])}{more}." if names else "There are none."


def similar(name: str, names: Sequence[str], limit: int = 3) -> list[str]:
    """The names most similar to `name`, best first. names: sorted."""
    at = bisect(names, name)  # compares only neighbours: comparing 100,000 names would take many seconds
    return get_close_matches(name, names[max(at - 500, 0) : at + 500], n=limit, cutoff=0.5)


@contextmanager
def located(where: str) -> Iterator[None]:
    """Prefix the message of a UserError raised in the block with `where`, for example a file and line."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error.message}", error.hint) from error
