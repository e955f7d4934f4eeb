"""The pooled connection to the database that everything here writes to."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import dagster as dg
import psycopg
from psycopg.conninfo import conninfo_to_dict

from dagster_backfills.postgres.url import checked_url

if TYPE_CHECKING:
    from sqlalchemy import Engine


def sqlalchemy_url(url: str) -> str:
    """A libpq URL (`postgresql://…`) as SQLAlchemy's, with the psycopg 3 driver."""
    _, rest = url.split("://", 1)
    return f"postgresql+psycopg://{rest}"


class PostgresResource(dg.ConfigurableResource):
    """One SQLAlchemy engine a process, psycopg 3 below it.

    `url` is a libpq URL. Empty means `DATABASE_URL` from the environment, and where that is empty too, the
    embedded server of this checkout. At most `pool_size` connections are kept, and twice as many are made.
    """

    url: str = ""
    pool_size: int = 4

    @cached_property
    def _engine(self) -> "Engine":
        from sqlalchemy import create_engine

        # libpq reads the URL: it knows forms that SQLAlchemy does not, several hosts or a service name say.
        url = self.libpq_url
        given = conninfo_to_dict(url)
        defaults = {"application_name": "dagster_backfills", "connect_timeout": 10}
        options = {name: value for name, value in defaults.items() if name not in given}
        options["options"] = f"{given.get('options', '')} -c timezone=UTC"
        return create_engine(
            "postgresql+psycopg://",
            creator=lambda: psycopg.connect(url, **options),  # type: ignore[arg-type]
            pool_size=self.pool_size,
            max_overflow=self.pool_size,
            pool_pre_ping=True,
        )

    @cached_property
    def libpq_url(self) -> str:
        """The URL that connections are made with."""
        from dagster_backfills.postgres.embedded import resolve_database_url

        return checked_url(self.url, "The database's URL") if self.url else resolve_database_url()

    @property
    def engine(self) -> "Engine":
        return self._engine

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection]:
        """A psycopg connection from the pool, in no transaction. What is not committed is rolled back."""
        raw = self._engine.raw_connection()
        try:
            yield raw.driver_connection  # type: ignore[misc]
        finally:
            if raw.driver_connection is None or raw.driver_connection.closed:
                raw.invalidate()
            else:
                raw.close()

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Give the connections back. The engine makes new ones if it is asked again."""
        if "_engine" in self.__dict__:
            self._engine.dispose()
