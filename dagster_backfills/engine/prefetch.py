"""Computes the rows of the next slices while the current one is written, each on its own connection and thread.

Only an optimization: a slice whose prefetch fails for any reason is computed again in the batch's own transaction,
which classifies the error.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from typing import Any

import psycopg

from dagster_backfills.engine.session import Connect

Rows = Callable[[psycopg.Connection, list[str]], Any]


def prefetched(
    connect: Connect, width: int, units: Iterator[list[str]], rows: Rows
) -> Generator[tuple[list[str], Any]]:
    """Yields each slice of `units` with its rows, or with None if they could not be computed.

    width: the number of slices to compute concurrently. The generator must be used and closed by one thread. Closing it
    cancels the computations in progress.
    """
    connections: list[psycopg.Connection] = []
    idle: SimpleQueue[psycopg.Connection] = SimpleQueue()
    pending: deque[tuple[list[str], Future[Any] | None]] = deque()

    def compute(slice_: list[str]) -> Any:
        conn = idle.get()
        try:
            return rows(conn, slice_)
        except Exception:
            return None
        finally:
            with suppress(psycopg.Error):
                conn.rollback()
            idle.put(conn)

    def first() -> tuple[list[str], Any]:
        slice_, future = pending.popleft()
        return slice_, future and future.result()

    with ExitStack() as stack:
        with suppress(Exception):  # fewer connections are fine, and so is none
            for _ in range(width):
                connections.append(stack.enter_context(connect()))
                idle.put(connections[-1])
        pool = stack.enter_context(ThreadPoolExecutor(width, "backfill prefetch"))
        try:
            for slice_ in units:
                pending.append((slice_, pool.submit(compute, slice_) if connections else None))
                if len(pending) > width:
                    yield first()
            while pending:
                yield first()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            if pending:
                for conn in connections:
                    with suppress(psycopg.Error):
                        conn.cancel_safe(timeout=5)
