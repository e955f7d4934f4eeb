"""Opening connections. All connections are opened here, so that every session has the same settings.

Not here: finding the database (`url`, `embedded`).
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from dagster_backfills.errors import NotUsableError

# Settings that results and their parsing depend on, whatever the server, database or role is configured with. Not the
# search path: our SQL qualifies names, and an application's triggers may need the database's own path.
PINNED: Mapping[str, str] = {
    "client_encoding": "UTF8",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    "xmloption": "content",
    "default_transaction_isolation": "read committed",
    # A transaction also idles while Python computes its rows.
    "idle_in_transaction_session_timeout": "0",
    # A query that a row-level security policy would filter fails instead.
    "row_security": "off",
}
_DEFAULTS = {"application_name": "dagster_backfills", "connect_timeout": 10}
_BACKEND = "select pg_catalog.pg_backend_pid()"
_TRIES = 5


def pin(settings: Mapping[str, str] = PINNED) -> str:
    """A statement that applies these settings to a session and returns the backend's process ID.

    The startup parameter `options` is not used because poolers reject it or silently drop it.
    """
    calls = (
        sql.SQL("pg_catalog.set_config({}, {}, false)").format(name, value)
        for name, value in settings.items()
    )
    return sql.SQL("select pg_catalog.pg_backend_pid(), {}").format(sql.SQL(", ").join(calls)).as_string()


def connect(url: str, *, autocommit: bool = False, **options: Any) -> psycopg.Connection[Any]:
    """Connect to `url` and apply the pinned settings. `options` are libpq options that override the URL's.

    Raises NotUsableError if a pooler in between does not support sessions.
    """
    conn, pooled = _open(url, options)
    try:
        if pooled:
            require_session(url)
        conn.autocommit = autocommit
    except BaseException:
        conn.close()
        raise
    return conn


@cache
def require_session(url: str) -> None:
    """Raise NotUsableError unless the pooler at `url` gives each client a server connection of its own."""
    if not _keeps_sessions(url):
        raise NotUsableError(
            f"The pooler at {_host_and_port(url)} is in transaction or statement mode, not in session mode.",
            "Locks, temporary tables, cursors and LISTEN need a session. Use session mode"
            " (PgBouncer: pool_mode = session), or connect to Postgres directly.",
        )


def backend_pid(conn: psycopg.Connection[Any]) -> int:
    """The process ID of the server's backend, as the backend itself reports it."""
    (pid,) = conn.execute(_BACKEND).fetchone() or (0,)
    return pid


def is_pooled(conn: psycopg.Connection[Any]) -> bool:
    """Whether there is a pooler in between. Poolers send clients a process ID of their own."""
    return backend_pid(conn) != conn.info.backend_pid


def is_of_row_security(error: psycopg.Error) -> bool:
    """Whether a row-level security policy would hide rows. Tests the source function: messages may be translated."""
    return error.diag.source_function == "check_enable_rls"


def rows_hidden(what: str, user: str) -> NotUsableError:
    """The error for a role that may not see all rows. A policy for the role would not help: it may still hide rows."""
    return NotUsableError(
        f"Row-level security hides rows from {user}: {what}.",
        f"As an administrator: alter role {sql.Identifier(user).as_string()} bypassrls."
        " `backfills doctor` names all such tables.",
    )


def _open(url: str, options: Mapping[str, Any]) -> tuple[psycopg.Connection[Any], bool]:
    given = conninfo_to_dict(url)
    defaults = {name: value for name, value in _DEFAULTS.items() if name not in given}
    conn = psycopg.connect(url, autocommit=True, **{**defaults, **options})
    try:
        row = conn.execute(pin()).fetchone()
        assert row is not None
        return conn, row[0] != conn.info.backend_pid
    except BaseException:
        conn.close()
        raise


def _keeps_sessions(url: str) -> bool:
    """Test with two clients whether each keeps its own backend while the other runs transactions."""
    first, _ = _open(url, {})
    second, _ = _open(url, {})
    with first, second:
        own = backend_pid(first)
        try:
            for _ in range(_TRIES):
                with second.transaction():
                    if backend_pid(second) == own or backend_pid(first) != own:
                        return False
        except psycopg.errors.ProtocolViolation:  # statement mode, which allows no transactions
            return False
    return True


def _host_and_port(url: str) -> str:
    given = conninfo_to_dict(url)
    return f"{given.get('host', 'localhost')}:{given.get('port', 5432)}"
