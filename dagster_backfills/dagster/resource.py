"""Connections to the database that everything here writes to. Not here: how a session is made (`connection`)."""

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
    """Where connections come from. Each is a session of its own: nothing that a borrower sets outlives its use.

    `url` is a libpq URL. Empty means `DATABASE_URL` from the environment, and where that is empty too, the
    embedded server of this checkout.
    """

    url: str = ""

    @cached_property
    def engine(self) -> "Engine":
        """The same for who works with SQLAlchemy."""
        from sqlalchemy import NullPool, create_engine

        # libpq reads the URL: it knows forms that SQLAlchemy does not, several hosts or a service name say.
        return create_engine(
            "postgresql+psycopg://", creator=lambda: connect(self.libpq_url), poolclass=NullPool
        )

    @cached_property
    def libpq_url(self) -> str:
        """The URL that connections are made with."""
        return checked_url(self.url, "The database's URL") if self.url else resolve_database_url()

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection]:
        """A psycopg connection, in no transaction. What is not committed is rolled back.

        Raises NotUsableError where row-level security would hide rows of a table that is read.
        """
        conn = connect(self.libpq_url)
        try:
            yield conn
        except Exception as error:
            for said in (error, error.__cause__):
                if isinstance(said, psycopg.Error) and is_of_row_security(said):
                    raise rows_hidden(f"{said.diag.message_primary}", conn.info.user) from error
            raise
        finally:
            conn.close()
