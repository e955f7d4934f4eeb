"""A worker's connection that comes back by itself after the server went away."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import psycopg

from dagster_backfills.postgres.connection import connect

T = TypeVar("T")


class LinkClosed(Exception):
    """The worker stops while the server is away."""


class Link:
    """One autocommit connection, used by one thread at a time."""

    def __init__(self, url: str, name: str, closing: threading.Event, prepare: tuple[str, ...] = ()) -> None:
        self._url, self._name, self._closing, self._prepare = url, name, closing, prepare
        self._conn: psycopg.Connection | None = None
        self._lock = threading.Lock()

    def call(self, work: Callable[[psycopg.Connection], T], *, give_up_after: float | None = None) -> T:
        """`work` with a live connection; again, with a new one, for as long as the server is away.

        Raises LinkClosed when the worker closes meanwhile, and the last error after `give_up_after` seconds.
        """
        begun, pause = time.monotonic(), 0.05
        while True:
            try:
                with self._lock:
                    return work(self._open())
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                self.close()
                if isinstance(error, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure):
                    pause = 0.0
                if give_up_after is not None and time.monotonic() - begun > give_up_after:
                    raise
            if self._closing.wait(pause):
                raise LinkClosed
            pause = min(2.0, pause * 2 + 0.05)

    def abandon(self) -> None:
        """Close the connection though a statement may be under way on it, which is cancelled."""
        conn = self._conn
        if conn is not None and not conn.closed:
            with suppress(psycopg.Error):
                conn.cancel_safe(timeout=2)
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        conn, self._conn = self._conn, None
        if conn is not None:
            with suppress(psycopg.Error):
                conn.close()

    def _open(self) -> psycopg.Connection:
        if self._conn is None or self._conn.closed:
            conn = connect(
                self._url,
                autocommit=True,
                application_name=f"background jobs: {self._name}"[:63],
                connect_timeout=10,
            )
            for statement in self._prepare:
                conn.execute(statement)
            self._conn = conn
        return self._conn
