"""Opening a connection: the one place where the product does, and where a session is made the same everywhere.

Not here: where the database is (`url`, `embedded`), and what one piece of work sets for its own transaction.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from dagster_backfills.errors import NotUsableError

# What results and their reading rely on, whatever the server, the database or the role is set to. Not the search
# path: names carry their schema, and an application's own triggers may need the path that its database is set to.
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
    # Rows that a policy hides are an error, not rows that are not there.
    "row_security": "off",
}
_DEFAULTS = {"application_name": "dagster_backfills", "connect_timeout": 10}
_BACKEND = "select pg_catalog.pg_backend_pid()"
_TRIES = 5


def pin(settings: Mapping[str, str] = PINNED) -> str:
    """The statement that sets these for a session, and returns the process id of its server's backend.

    By statement, not as the startup parameter `options`: poolers refuse that, or drop it without a word.
    """
    calls = (
        sql.SQL("pg_catalog.set_config({}, {}, false)").format(name, value)
        for name, value in settings.items()
    )
    return sql.SQL("select pg_catalog.pg_backend_pid(), {}").format(sql.SQL(", ").join(calls)).as_string()


def connect(url: str, *, autocommit: bool = False, **options: Any) -> psycopg.Connection[Any]:
    """A connection to `url` with its session pinned. `options` are libpq's, and win over the URL's.

    Raises NotUsableError where a pooler in between does not keep a session.
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
    """Raise NotUsableError unless the pooler behind `url` gives each client a server's connection of its own."""
    if not _keeps_sessions(url):
        raise NotUsableError(
            f"The pooler at {_place(url)} hands its connections on after each transaction.",
            "Locks, temporary tables, cursors and LISTEN need a session: use its session mode"
            " (PgBouncer: pool_mode = session), or Postgres' own address.",
        )


def backend_pid(conn: psycopg.Connection[Any]) -> int:
    """The process id of the server's backend, as the backend itself says it."""
    (pid,) = conn.execute(_BACKEND).fetchone() or (0,)
    return pid


def is_pooled(conn: psycopg.Connection[Any]) -> bool:
    """Whether somebody stands between: a pooler answers with a process id that it has made up."""
    return backend_pid(conn) != conn.info.backend_pid


def is_of_row_security(error: psycopg.Error) -> bool:
    """Whether Postgres refused to leave out what a policy hides. By who says it: its words may be in any language."""
    return error.diag.source_function == "check_enable_rls"


def rows_hidden(what: str, user: str) -> NotUsableError:
    """The error of a role that may not see all rows, with what to do about it.

    A policy for the role does not help: nobody can tell what it leaves out.
    """
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
    """Tried: of two clients at once, the second must not get what the first has, nor the first something else."""
    first, _ = _open(url, {})
    second, _ = _open(url, {})
    with first, second:
        own = backend_pid(first)
        try:
            for _ in range(_TRIES):
                with second.transaction():
                    if backend_pid(second) == own or backend_pid(first) != own:
                        return False
        except psycopg.errors.ProtocolViolation:  # a pooler that allows no transaction at all
            return False
    return True


def _place(url: str) -> str:
    given = conninfo_to_dict(url)
    return f"{given.get('host', 'localhost')}:{given.get('port', 5432)}"
