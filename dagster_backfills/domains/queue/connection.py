"""A worker's connection, which comes back by itself after the server went away."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from dagster_backfills.engine.failures import ErrorClass, classify
from dagster_backfills.postgres.connection import connect
from dagster_backfills.postgres.values import show_every_value

T = TypeVar("T")
_MOST_LOSSES = 3


class WorkerEnds(Exception):
    """The worker ends while the server is away."""


class Connection:
    """One autocommit connection, used by one thread."""

    def __init__(self, url: str, name: str, ending: threading.Event, listen: tuple[str, ...] = ()) -> None:
        self._url, self._name, self._ending, self._listen = url, name, ending, listen
        self._conn: psycopg.Connection | None = None

    def call(self, work: Callable[[psycopg.Connection], T], *, give_up_after: float | None = None) -> T:
        """`work` with a live connection; again, with a new one, where the server went away or another was in the way.

        Raises WorkerEnds when the worker ends meanwhile; the last error after `give_up_after` seconds, or where the
        server takes each new connection and `work` costs it, three times in a row: then it is the work.
        """
        begun, pause, losses = time.monotonic(), 0.05, 0
        while True:
            connected = False
            try:
                conn = self._open()
                connected = True
                return work(conn)
            except psycopg.Error as error:
                kind = classify(error)
                if kind not in (ErrorClass.CONNECTION, ErrorClass.CONFLICT):
                    raise
                losses += connected and kind is ErrorClass.CONNECTION
                late = give_up_after is not None and time.monotonic() - begun > give_up_after
                if late or losses >= _MOST_LOSSES:
                    raise
                if kind is ErrorClass.CONNECTION:
                    self.close()
            if self._ending.wait(pause):
                raise WorkerEnds
            pause = min(2.0, pause * 2 + 0.05)

    def close(self) -> None:
        """Close the connection, and cancel what an interruption left under way on it. The next call opens another."""
        conn, self._conn = self._conn, None
        if conn is None:
            return
        with suppress(psycopg.Error):
            if conn.info.transaction_status is TransactionStatus.ACTIVE:
                conn.cancel_safe(timeout=2)
            conn.close()

    def _open(self) -> psycopg.Connection:
        if self._conn is None or self._conn.closed:
            name = f"background jobs: {self._name}"[:63]
            conn = connect(self._url, autocommit=True, application_name=name, connect_timeout=10)
            show_every_value(conn)
            for channel in self._listen:
                conn.execute(f"listen {channel}")
            self._conn = conn
        return self._conn
