"""Connections for requests: a session of its own for each, and so many at once. Not here: how one is made."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any

import psycopg

from dagster_backfills.errors import NotUsableError
from dagster_backfills.postgres.connection import connect
from dagster_backfills.postgres.embedded import resolve_database_url
from dagster_backfills.postgres.values import show_every_value

_PATIENCE = 10.0


class Database:
    """`with database() as conn:` gives a pinned connection in autocommit. At most `connections` are open at once."""

    def __init__(self, connections: int) -> None:
        self._free = BoundedSemaphore(connections)

    @property
    def url(self) -> str:
        return resolve_database_url()

    @contextmanager
    def __call__(self) -> Iterator[psycopg.Connection[Any]]:
        if not self._free.acquire(timeout=_PATIENCE):
            raise NotUsableError("Too many requests are at the database.", "Try again in a moment.")
        try:
            with connect(self.url, autocommit=True, application_name="backfills serve") as conn:
                show_every_value(conn)
                yield conn
        finally:
            self._free.release()
