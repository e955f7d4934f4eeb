"""Two connections that write batches side by side and commit in order. Not here: what a transaction does."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import psycopg

from dagster_backfills.defs.kintell.batches import Batch
from dagster_backfills.defs.kintell.claims import Claim
from dagster_backfills.defs.kintell.writer import Rules, Turns, Written, write_import_batch

WRITERS = 2


class Writers:
    """Two connections that write batches side by side; results come back in the file's order."""

    def __init__(self, claim: Claim, rules: Rules) -> None:
        self.claim, self.rules = claim, rules
        self.turns = Turns()
        self.number = 0
        self.failed_at: int | None = None
        self.inflight: deque[tuple[int, Future[Written]]] = deque()
        self.connections: deque[psycopg.Connection] = deque()

    def __enter__(self) -> "Writers":
        self.connections.extend(self.claim.connect() for _ in range(WRITERS))
        for conn in self.connections:
            conn.execute("set temp_buffers = '32MB'")
        self.pool = ThreadPoolExecutor(WRITERS, thread_name_prefix="kintell-writer")
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)
        for conn in self.connections:
            conn.close()

    def free(self) -> bool:
        return len(self.inflight) < WRITERS

    def pending(self) -> bool:
        return bool(self.inflight)

    def submit(self, batch: Batch, *, careful: bool) -> None:
        future = self.pool.submit(self.write, batch, self.number, careful)
        self.inflight.append((batch.last_row, future))
        self.number += 1

    def write(self, batch: Batch, number: int, careful: bool) -> Written:
        conn = self.connections.popleft()
        try:
            return write_import_batch(
                conn, self.claim, batch, self.rules, self.turns, number, careful=careful
            )
        finally:
            self.turns.begun(number)
            self.connections.append(conn)

    def oldest(self) -> Written:
        """The result of the oldest batch under way. Where it failed, the others are waited for first."""
        last_row, future = self.inflight.popleft()
        try:
            return future.result()
        except BaseException:
            self.failed_at = last_row
            self.pool.shutdown(wait=True, cancel_futures=True)
            raise
