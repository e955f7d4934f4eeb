"""Database connections for requests: one session each, with a limit on their number."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any

import psycopg

from dagster_backfills.errors import NotUsableError
from dagster_backfills.postgres.connection import connect
from dagster_backfills.postgres.embedded import resolve_database_url
from dagster_backfills.postgres.values import show_every_value

_WAIT_SECONDS = 10.0


class Database:
    """`with database() as conn:` opens a connection in autocommit mode. At most `connections` are open at once."""

    def __init__(self, connections: int) -> None:
        self._free = BoundedSemaphore(connections)

    @property
    def url(self) -> str:
        return resolve_database_url()

    @contextmanager
    def __call__(self) -> Iterator[psycopg.Connection[Any]]:
        if not self._free.acquire(timeout=_WAIT_SECONDS):
            raise NotUsableError("All database connections are in use.", "Try again in a moment.")
        try:
            with connect(self.url, autocommit=True, application_name="backfills serve") as conn:
                show_every_value(conn)
                yield conn
        finally:
            self._free.release()
