"""Two connections that write batches side by side and commit in the file's order. Not here: what a transaction does."""

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from uuid import UUID

import psycopg

from dagster_backfills.domains.kintell.importing.claims import Claim
from dagster_backfills.domains.kintell.importing.writer import ImportRules, Written, write_import_batch
from dagster_backfills.domains.kintell.rows.batches import Batch
from dagster_backfills.domains.kintell.statements import statements

WRITERS = 2


class Writers:
    """Two connections that write batches side by side; results come back in the file's order."""

    def __init__(self, claim: Claim, rules: ImportRules) -> None:
        self.claim, self.rules = claim, rules
        self.turns = _Turns(claim.job)
        self.number = 0
        self.failed_at: int | None = None
        self.inflight: deque[tuple[int, Future[Written]]] = deque()
        self.connections: deque[psycopg.Connection] = deque()

    def __enter__(self) -> "Writers":
        self.connections.extend(self.claim.connect() for _ in range(WRITERS))
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
        future = self.pool.submit(self._write, batch, self.number, careful)
        self.inflight.append((batch.block.last_row, future))
        self.number += 1

    def _write(self, batch: Batch, number: int, careful: bool) -> Written:
        conn = self.connections.popleft()
        try:
            with conn.transaction():
                self.turns.begin(conn, number)
                in_turn = partial(self.turns.wait, conn, number)
                return write_import_batch(conn, self.claim, batch, self.rules, in_turn, careful=careful)
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


class _Turns:
    """The order of commits. A batch's number is its place in it."""

    def __init__(self, job: UUID) -> None:
        self._job = str(job)
        self._begun: dict[int, threading.Event] = {}
        self._guard = threading.Lock()

    def _event(self, number: int) -> threading.Event:
        with self._guard:
            return self._begun.setdefault(number, threading.Event())

    def begun(self, number: int) -> None:
        """The batch has its place, or never will: whoever waits for it may go on."""
        self._event(number).set()

    def begin(self, conn: psycopg.Connection, number: int) -> None:
        """To be called first in the batch's transaction, which holds its place until it ends."""
        statements().lock_batch(conn, job=self._job, number=number)
        self.begun(number)

    def wait(self, conn: psycopg.Connection, number: int) -> None:
        """Until the batch before has ended. The waiting is Postgres's, so that it sees any deadlock."""
        if number == 0:
            return
        self._event(number - 1).wait()
        statements().await_batch(conn, job=self._job, number=number - 1)
        with self._guard:
            self._begun.pop(number - 2, None)
