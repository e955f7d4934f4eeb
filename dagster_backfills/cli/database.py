"""The database for the time of one command; an embedded server where `DATABASE_URL` names no other."""

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
# Sessions of others, of whatever database.
_OTHERS = (
    "select 1 from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() limit 1"
)


@contextmanager
def running_postgres() -> Iterator[ExitStack]:
    """The embedded server, if it is that. One that this starts is stopped at the end: `pop_all` leaves it running."""
    with ExitStack() as at_the_end:
        if not os.environ.get("DATABASE_URL", "").strip():
            server = EmbeddedServer(state_dir())
            if server.start():
                at_the_end.callback(server.stop)
        yield at_the_end


@contextmanager
def glance() -> Iterator[psycopg.Connection[Any]]:
    """The database for a command that only looks: a server that this starts goes on if others use it by now."""
    with running_postgres() as at_the_end, database() as conn:
        try:
            yield conn
        finally:
            with suppress(psycopg.OperationalError):  # it is away by itself
                if conn.execute(_OTHERS).fetchone():
                    at_the_end.pop_all()


@contextmanager
def database() -> Iterator[psycopg.Connection[Any]]:
    """The database, migrated, for the time of one command."""
    url = resolve_database_url()
    require_migrations(url)
    with connect(url, autocommit=True, application_name="backfills", connect_timeout=10) as conn:
        show_every_value(conn)
        yield conn


@contextmanager
def database_of(variable: str | None) -> Iterator[psycopg.Connection[Any]]:
    """The database that a declaration names, migrated or not; one that it does not name is DATABASE_URL."""
    url = resolve_database_url(variable)
    with connect(url, application_name="backfills", connect_timeout=10) as conn:
        yield conn


def looks(
    url: str, look: Callable[[psycopg.Connection[Any]], Seen]
) -> Generator[Seen | psycopg.OperationalError, None, None]:
    """What there is to see, look by look; the error, while the database is away."""
    conn = None
    try:
        while True:
            try:
                if conn is None:
                    conn = connect(url, autocommit=True, connect_timeout=5)
                    show_every_value(conn)
                yield look(conn)
            except psycopg.OperationalError as error:
                if conn:
                    conn.close()
                conn = None
                yield error
    finally:
        if conn:
            conn.close()
