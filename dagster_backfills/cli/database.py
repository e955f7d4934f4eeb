"""Database connections for a command. The embedded server is used if `DATABASE_URL` is not set."""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

import psycopg

from dagster_backfills.postgres.connection import connect
from dagster_backfills.postgres.embedded import EmbeddedServer, resolve_database_url
from dagster_backfills.postgres.migrations import require_migrations
from dagster_backfills.postgres.values import show_every_value
from dagster_backfills.state import state_dir

Seen = TypeVar("Seen")
# Other client sessions, in any database of the server.
_OTHERS = (
    "select 1 from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() limit 1"
)


@contextmanager
def running_postgres() -> Iterator[ExitStack]:
    """Start the embedded server if it is used and not running, and stop it afterwards. `pop_all` keeps it running."""
    with ExitStack() as at_the_end:
        if not os.environ.get("DATABASE_URL", "").strip():
            server = EmbeddedServer(state_dir())
            if server.start():
                at_the_end.callback(server.stop)
        yield at_the_end


@contextmanager
def glance() -> Iterator[psycopg.Connection[Any]]:
    """A connection for a read-only command. A server that it starts keeps running if others connect meanwhile."""
    with running_postgres() as at_the_end, database() as conn:
        try:
            yield conn
        finally:
            with suppress(psycopg.OperationalError):  # the server has gone away
                if conn.execute(_OTHERS).fetchone():
                    at_the_end.pop_all()


@contextmanager
def database() -> Iterator[psycopg.Connection[Any]]:
    """A connection to DATABASE_URL. Raises UserError if migrations are pending."""
    url = resolve_database_url()
    require_migrations(url)
    with connect(url, autocommit=True, application_name="backfills", connect_timeout=10) as conn:
        show_every_value(conn)
        yield conn


@contextmanager
def database_of(variable: str | None) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the database that a declaration names, or else DATABASE_URL. Migrations are not checked."""
    url = resolve_database_url(variable)
    with connect(url, application_name="backfills", connect_timeout=10) as conn:
        yield conn


def poll_database(
    url: str, read: Callable[[psycopg.Connection[Any]], Seen]
) -> Generator[Seen | psycopg.OperationalError, None, None]:
    """Yield the result of `read` each time, or the error while the database is unavailable. Reconnects by itself."""
    conn = None
    try:
        while True:
            try:
                if conn is None:
                    conn = connect(url, autocommit=True, connect_timeout=5)
                    show_every_value(conn)
                yield read(conn)
            except psycopg.OperationalError as error:
                if conn:
                    conn.close()
                conn = None
                yield error
    finally:
        if conn:
            conn.close()
