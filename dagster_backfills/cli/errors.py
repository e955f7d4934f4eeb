"""Turns any exception into an error message and an exit code. Commands raise; they don't print errors themselves.

Also shows what libraries log.
"""

import logging
import os
import sys
import traceback

import typer

from dagster_backfills.domain_switches import library_of_domain
from dagster_backfills.errors import NotUsableError, UserError
from dagster_backfills.postgres.explained import chain, explain_database, is_of_database
from dagster_backfills.redact import redact

OK = 0
FAILURES = 1  # finished, but some units (or the run) failed
USAGE = 2  # invalid request
NOT_USABLE = 3  # the server, the database or this machine is not usable
UNEXPECTED = 70  # a bug
INTERRUPTED = 130
BROKEN_PIPE = 141  # the reader of stdout closed the pipe


def report(error: BaseException, debug: bool = False) -> int:
    """Print the error and the hint on stderr, with a traceback if `debug`, and return the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else OK
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    if isinstance(error, typer.TyperException):
        getattr(error, "show", lambda: _say(error.message))()
        return USAGE
    if debug:
        _say(redact("".join(traceback.format_exception(error))))
    code, message, hint = explain(error)
    _say(redact(str(UserError(message, hint))))
    return code


def explain(error: BaseException) -> tuple[int, str, str]:
    """The exit code, message and hint for any exception."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED, "Interrupted.", ""
    for cause in chain(error):
        if isinstance(cause, UserError):
            code = NOT_USABLE if isinstance(cause, NotUsableError) else USAGE
            return code, cause.message, cause.hint
        if isinstance(cause, ModuleNotFoundError) and (message := library_of_domain(cause.name)):
            return NOT_USABLE, message, ""
        if is_of_database(cause):
            return NOT_USABLE, *explain_database(cause)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return NOT_USABLE, f"{where}{error.strerror or error}.", ""
    first = (str(error).strip() or "no message").splitlines()[0]
    return (
        UNEXPECTED,
        f"Unexpected {type(error).__name__}: {first}",
        "For the traceback: backfills --debug …",
    )


class LogLines(logging.Handler):
    """Prints libraries' warnings on stderr: the first line of each, and a repeated one once.

    While a server is away, Dagster logs the same lines for every attempt to reach it.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last = ""

    def emit(self, record: logging.LogRecord) -> None:
        line = redact(record.getMessage().partition("\n")[0])
        if line != self._last:
            _say(line)
        self._last = line


def _say(text: str) -> None:
    print(f"backfills: {text}", file=sys.stderr)  # noqa: T201
