"""The one place where an exception becomes words for a person and an exit code. No command prints its own errors."""

import os
import re
import sys
import traceback
from collections.abc import Iterator

import typer

from dagster_backfills.domain_switches import library_of_domain
from dagster_backfills.errors import NotUsableError, UserError
from dagster_backfills.redact import redact

OK = 0
FAILURES = 1  # finished, but some units (or the run) failed
USAGE = 2  # the request was wrong
NOT_USABLE = 3  # the server, the database or this machine can't serve it
UNEXPECTED = 70  # a mistake in this program
INTERRUPTED = 130
BROKEN_PIPE = 141  # whoever read the output stopped reading

_MIGRATE = "Run: backfills migrate"
# sqlstate -> what to do; the words are the database's own.
_HINTS = {
    "42P01": _MIGRATE,
    "42703": _MIGRATE,
    "42883": _MIGRATE,
    "3F000": _MIGRATE,
    "25006": "It is a standby or set to read only. Point DATABASE_URL at the primary.",
    "42501": "Connect as a role that may do this: see sql/roles.sql.",
    "53300": "Wait, or raise max_connections.",
    "53100": "Free some space.",
    "57014": "Raise statement_timeout, or try again when there is less to do.",
}

_ROWS_HIDDEN = (
    "As an administrator: alter role … bypassrls. `backfills doctor` names the role and all such tables."
)


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
    for cause in _chain(error):
        if isinstance(cause, UserError):
            code = NOT_USABLE if isinstance(cause, NotUsableError) else USAGE
            return code, cause.message, cause.hint
        if isinstance(cause, ModuleNotFoundError) and (said := library_of_domain(cause.name)):
            return NOT_USABLE, said, ""
        if type(cause).__module__.split(".")[0] in ("psycopg", "psycopg2"):
            return NOT_USABLE, *_explain_database(cause)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return NOT_USABLE, f"{where}{error.strerror or error}.", ""
    first = (str(error).strip() or "no message").splitlines()[0]
    return (
        UNEXPECTED,
        f"Unexpected {type(error).__name__}: {first}",
        "For the trace, add --debug: backfills --debug …",
    )


def _explain_database(error: BaseException) -> tuple[str, str]:
    sqlstate = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    diagnosis = getattr(error, "diag", None)
    text = " ".join(str(error).split())
    if sqlstate:
        primary = getattr(diagnosis, "message_primary", None) or text
        hidden = getattr(diagnosis, "source_function", None) == "check_enable_rls"
        hint = _ROWS_HIDDEN if hidden else _HINTS.get(sqlstate, "")
        return f"The database refuses: {primary} ({sqlstate}).", hint
    if "connection string" in text or "connection info" in text or "connection URI" in text:
        return "DATABASE_URL is not a connection URL.", "Write postgresql://user:password@host:5432/database."
    if found := re.search(r'authentication failed for user "([^"]*)"|no password supplied', text):
        return f"{_server(text)} refuses the password{_of(found[1])}.", "Check DATABASE_URL."
    if found := re.search(r'database "([^"]*)" does not exist', text):
        return f"{_server(text)} has no database {found[1]!r}.", "Create it, or check DATABASE_URL."
    if found := re.search(r'role "([^"]*)" does not exist', text):
        return f"{_server(text)} has no role {found[1]!r}.", "Check DATABASE_URL."
    if found := re.search(r"unsupported startup parameter[^:]*: (\S+)", text):
        hint = f"Leave {found[1]} out of the URL, or set it for the role: alter role … set …"
        return (
            f"The pooler at {_server(text).removeprefix('The Postgres server at ')} takes no {found[1]}.",
            hint,
        )
    if found := re.search(r"FATAL: +(.*)", text):
        return f"{_server(text)} refuses the connection: {found[1]}.", ""
    if re.search(r"connection .*failed|could not|resolve|timeout|timed out", text):
        hint = "Start it, or unset DATABASE_URL to use the embedded one."
        return f"{_server(text)} does not answer: {_reason(text)}.", hint
    return f"The connection to the database broke: {text}", "Is the server still running? Then try again."


def _server(text: str) -> str:
    found = (
        re.search(r'server at "(?P<host>[^"]+)"(?: \([^)]*\))?, port (?P<port>\d+)', text)
        or re.search(r'socket "(?P<host>[^"]+)/\.s\.PGSQL\.(?P<port>\d+)"', text)
        or re.search(r"""resolve host ['"](?P<host>[^'"]+)()""", text)
        or re.search(r'host(?:name)?:? ["\'](?P<host>[^"\']+)["\'](?:, port: "?(?P<port>\d+))?', text)
    )
    if not found:
        return "The Postgres server of DATABASE_URL"
    port = found.groupdict().get("port")
    return f"The Postgres server at {found['host']}{f':{port}' if port else ''}"


def _reason(text: str) -> str:
    found = re.search(r"failed: (?:error: )?([^:]+?)(?: Is the server|$)", text) or re.search(
        r"\] ([^:]+)$", text
    )
    return (found[1] if found else text).strip().rstrip(".").lower()


def _of(user: str | None) -> str:
    return f" of {user!r}" if user else ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and those behind it, outermost first. SQLAlchemy keeps the driver's in `orig`."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop(0)
        if current is not None and current not in seen:
            seen.append(current)
            yield current
            waiting += [getattr(current, "orig", None), current.__cause__, current.__context__]


def _say(text: str) -> None:
    print(f"backfills: {text}", file=sys.stderr)  # noqa: T201
