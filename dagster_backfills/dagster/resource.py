"""The database as a Dagster resource. Not here: session settings (`postgres/connection`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import dagster as dg
import psycopg

from dagster_backfills.postgres.connection import connect, is_of_row_security, rows_hidden
from dagster_backfills.postgres.embedded import resolve_database_url
from dagster_backfills.postgres.url import checked_url

if TYPE_CHECKING:
    from sqlalchemy import Engine


class PostgresResource(dg.ConfigurableResource):
    """Opens connections to a Postgres database. Each is a new session, so session settings never leak.

    `url` is a libpq URL. If it is empty, the environment's `DATABASE_URL` is used, or the embedded server if that is
    empty too.
    """

    url: str = ""

    @cached_property
    def engine(self) -> "Engine":
        """A SQLAlchemy engine whose connections are opened the same way."""
        from sqlalchemy import NullPool, create_engine

        # libpq parses the URL, because it accepts forms that SQLAlchemy does not: several hosts, a service name.
        return create_engine(
            "postgresql+psycopg://", creator=lambda: connect(self.libpq_url), poolclass=NullPool
        )

    @cached_property
    def libpq_url(self) -> str:
        """The URL that connections are opened with."""
        return checked_url(self.url, "The database's URL") if self.url else resolve_database_url()

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection]:
        """A psycopg connection, not in a transaction. Uncommitted changes are rolled back when the block ends.

        Raises NotUsableError if row-level security would hide rows of a table that is read.
        """
        conn = connect(self.libpq_url)
        try:
            yield conn
        except Exception as error:
            for each in (error, error.__cause__):
                if isinstance(each, psycopg.Error) and is_of_row_security(each):
                    raise rows_hidden(f"{each.diag.message_primary}", conn.info.user) from error
            raise
        finally:
            conn.close()
