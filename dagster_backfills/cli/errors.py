"""The one place where an exception becomes words for a person and an exit code. No command prints its own errors."""

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
USAGE = 2  # the request was wrong
NOT_USABLE = 3  # the server, the database or this machine can't serve it
UNEXPECTED = 70  # a mistake in this program
INTERRUPTED = 130
BROKEN_PIPE = 141  # whoever read the output stopped reading


def report(error: BaseException, debug: bool = False) -> int:
    """Say on stderr what is wrong and what to do, and return the exit code. The trace comes with `debug` only."""
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
    _say(redact(" ".join(part for part in (message, hint) if part)))
    return code


def explain(error: BaseException) -> tuple[int, str, str]:
    """Exit code, what is wrong, and what to do, for any exception."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED, "Interrupted.", ""
    for cause in chain(error):
        if isinstance(cause, UserError):
            code = NOT_USABLE if isinstance(cause, NotUsableError) else USAGE
            return code, cause.message, cause.hint
        if isinstance(cause, ModuleNotFoundError) and (said := library_of_domain(cause.name)):
            return NOT_USABLE, said, ""
        if is_of_database(cause):
            return NOT_USABLE, *explain_database(cause)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return NOT_USABLE, f"{where}{error.strerror or error}.", ""
    first = (str(error).strip() or "no message").splitlines()[0]
    return (
        UNEXPECTED,
        f"Unexpected {type(error).__name__}: {first}",
        "For the trace, add --debug: backfills --debug …",
    )


def _say(text: str) -> None:
    print(f"backfills: {text}", file=sys.stderr)  # noqa: T201
