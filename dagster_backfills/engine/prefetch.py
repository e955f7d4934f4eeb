"""Rows of the next slices, computed while the last one's are written: a connection and a thread each.

It saves time alone. What it could not compute, for whatever reason, is computed again in the batch's own
transaction, where errors have their class.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from dagster_backfills.engine.session import Connect

Rows = Callable[[psycopg.Connection, list[str]], Any]


class Prefetch:
    """Up to `width` slices computed at once. Used by one thread."""

    def __init__(self, connect: "Connect", tune: Callable[[psycopg.Connection], None], width: int) -> None:
        self._connect, self._tune, self._width = connect, tune, width
        self._stack = ExitStack()
        self._connections: list[psycopg.Connection] = []
        self._idle: SimpleQueue[psycopg.Connection] = SimpleQueue()

    def __enter__(self) -> "Prefetch":
        with suppress(Exception):  # fewer do as well, and none: the batches' own connection is what counts
            for _ in range(self._width):
                self._connections.append(self._stack.enter_context(self._connect()))
                self._idle.put(self._connections[-1])
        self._pool = self._stack.enter_context(
            ThreadPoolExecutor(max(len(self._connections), 1), "backfill prefetch")
        )
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if kind is not None:  # nobody waits for what is being computed
            for conn in self._connections:
                with suppress(psycopg.Error):
                    conn.cancel_safe(timeout=5)
        self._stack.close()

    def slices(self, units: Iterator[list[str]], rows: Rows) -> Iterator[tuple[list[str], Any]]:
        """Each slice with its rows, or with None where they could not be computed here."""
        if not self._connections:
            yield from ((slice_, None) for slice_ in units)
            return
        under_way: deque[tuple[list[str], Future[Any]]] = deque()
        try:
            for slice_ in units:
                under_way.append((slice_, self._pool.submit(self._compute, rows, slice_)))
                if len(under_way) > self._width:
                    first, future = under_way.popleft()
                    yield first, future.result()
            while under_way:
                first, future = under_way.popleft()
                yield first, future.result()
        finally:
            for _, future in under_way:
                future.cancel()

    def _compute(self, rows: Rows, slice_: list[str]) -> Any:
        conn = self._idle.get()
        try:
            self._tune(conn)
            return rows(conn, slice_)
        except Exception:
            return None
        finally:
            with suppress(psycopg.Error):
                conn.rollback()
            self._idle.put(conn)
