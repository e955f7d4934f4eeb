"""A worker's database connection, which reconnects by itself."""

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
_MAX_LOST_CONNECTIONS = 3


class WorkerStopping(Exception):
    """The worker was told to stop while it waited to reconnect."""


class Connection:
    """One autocommit connection, used by one thread."""

    def __init__(self, url: str, name: str, stopping: threading.Event, listen: tuple[str, ...] = ()) -> None:
        self._url, self._name, self._stopping, self._listen = url, name, stopping, listen
        self._conn: psycopg.Connection | None = None

    def call(self, work: Callable[[psycopg.Connection], T], *, give_up_after: float | None = None) -> T:
        """Call `work` with a live connection. Reconnect and retry on connection errors; retry on conflicts.

        Raises WorkerStopping if the worker stops meanwhile. Raises the last error after `give_up_after` seconds, or
        once `work` has lost three connections that had opened successfully: then `work` is the likely cause.
        """
        started, pause, lost = time.monotonic(), 0.05, 0
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
                lost += connected and kind is ErrorClass.CONNECTION
                late = give_up_after is not None and time.monotonic() - started > give_up_after
                if late or lost >= _MAX_LOST_CONNECTIONS:
                    raise
                if kind is ErrorClass.CONNECTION:
                    self.close()
            if self._stopping.wait(pause):
                raise WorkerStopping
            pause = min(2.0, pause * 2 + 0.05)

    def close(self) -> None:
        """Close the connection, cancelling a statement that was interrupted. The next call opens a new one."""
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
