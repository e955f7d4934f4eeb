"""Turning errors of Postgres and its drivers into messages that say what is wrong and how to fix it."""

import re
from collections.abc import Iterator

_MIGRATE = "Run: backfills migrate"
# Hints by SQLSTATE. The message is the database's own.
_HINTS = {
    "42P01": _MIGRATE,
    "42703": _MIGRATE,
    "42883": _MIGRATE,
    "3F000": _MIGRATE,
    "25006": "It is a standby or set to read only. Point DATABASE_URL at the primary.",
    "42501": "Grant it, or connect as a role of `backfills migrate --roles` (sql/roles.sql).",
    "53300": "Wait, or raise max_connections.",
    "53100": "Free some disk space.",
    "57014": "Raise statement_timeout, or try again when the database is less busy.",
}

_NO_SCHEMA = (
    "The role may not use the schema `dagster`, which holds Dagster's tables."
    " Grant it, or connect as a role of `backfills migrate --roles` (sql/roles.sql)."
)
_ROWS_HIDDEN = (
    "As an administrator: alter role … bypassrls. `backfills doctor` names the role and all such tables."
)


def is_of_database(error: BaseException) -> bool:
    """Whether a database driver raised this."""
    return type(error).__module__.split(".")[0] in ("psycopg", "psycopg2")


def explain_database(error: BaseException) -> tuple[str, str]:
    """The message and the hint for an exception of a database driver."""
    sqlstate = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    diagnosis = getattr(error, "diag", None)
    text = " ".join(str(error).split())
    if sqlstate:
        primary = getattr(diagnosis, "message_primary", None) or text
        by_function = {"check_enable_rls": _ROWS_HIDDEN, "RangeVarGetCreationNamespace": _NO_SCHEMA}
        source_function = getattr(diagnosis, "source_function", None)
        hint = by_function.get(source_function or "") or _HINTS.get(sqlstate, "")
        return f"The database refused: {primary} ({sqlstate}).", hint
    if "connection string" in text or "connection info" in text or "connection URI" in text:
        return "DATABASE_URL is not a connection URL.", "Write postgresql://user:password@host:5432/database."
    if found := re.search(r'authentication failed for user "([^"]*)"|no password supplied', text):
        return f"{_server(text)} rejected the password{_of(found[1])}.", "Check DATABASE_URL."
    if found := re.search(r'database "([^"]*)" does not exist', text):
        return f"{_server(text)} has no database {found[1]!r}.", "Create it, or check DATABASE_URL."
    if found := re.search(r'role "([^"]*)" does not exist', text):
        return f"{_server(text)} has no role {found[1]!r}.", "Check DATABASE_URL."
    if found := re.search(r"unsupported startup parameter[^:]*: (\S+)", text):
        hint = f"Leave {found[1]} out of the URL, or set it for the role: alter role … set …"
        return (
            f"The pooler at {_server(text).removeprefix('The Postgres server at ')} does not accept {found[1]}.",
            hint,
        )
    if found := re.search(r"FATAL: +(.*)", text):
        return f"{_server(text)} refused the connection: {found[1]}.", ""
    if re.search(r"connection .*failed|could not|resolve|timeout|timed out", text):
        hint = "Start it, or unset DATABASE_URL to use the embedded one."
        return f"{_server(text)} does not answer: {_reason(text)}.", hint
    return (
        f"The connection to the database was lost: {text}",
        "Check that the server is running and try again.",
    )


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


def chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and its causes, outermost first. SQLAlchemy keeps the driver's exception in `orig`."""
    seen: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop(0)
        if current is not None and current not in seen:
            seen.append(current)
            yield current
            pending += [getattr(current, "orig", None), current.__cause__, current.__context__]
