"""Rows of the next slices, computed while the last one's are written: a connection and a thread each.

It saves time alone. What it could not compute, for whatever reason, is computed again in the batch's own
transaction, where errors have their class.
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
    """Each slice of `units` with its rows, up to `width` computed at once; with None where that could not be done.

    Used by one thread, and closed by it: nobody waits for what is being computed then.
    """
    connections: list[psycopg.Connection] = []
    idle: SimpleQueue[psycopg.Connection] = SimpleQueue()
    under_way: deque[tuple[list[str], Future[Any] | None]] = deque()

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
        slice_, future = under_way.popleft()
        return slice_, future and future.result()

    with ExitStack() as stack:
        with suppress(Exception):  # fewer do as well, and none: the batches' own connection is what counts
            for _ in range(width):
                connections.append(stack.enter_context(connect()))
                idle.put(connections[-1])
        pool = stack.enter_context(ThreadPoolExecutor(width, "backfill prefetch"))
        try:
            for slice_ in units:
                under_way.append((slice_, pool.submit(compute, slice_) if connections else None))
                if len(under_way) > width:
                    yield first()
            while under_way:
                yield first()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            if under_way:
                for conn in connections:
                    with suppress(psycopg.Error):
                        conn.cancel_safe(timeout=5)
