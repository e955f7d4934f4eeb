"""Writes batches in parallel on two connections and commits them in file order. Not here: transactions (`writer`)."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import psycopg

from dagster_backfills.domains.kintell.importing.claims import Claim
from dagster_backfills.domains.kintell.importing.writer import BatchResult, ImportRules, write_import_batch
from dagster_backfills.domains.kintell.rows.batches import Batch
from dagster_backfills.domains.kintell.statements import STATEMENTS

WRITERS = 2


class Writers:
    """Two connections with a thread each. In batches that start at or before row `isolate_upto`, the rows that Postgres
    rejects are isolated. `failed_at` is the last row of the first batch that failed."""

    def __init__(self, claim: Claim, rules: ImportRules, isolate_upto: int) -> None:
        self.claim, self.rules, self.isolate_upto = claim, rules, isolate_upto
        self.failed_at = 0
        self._in_flight: deque[tuple[int, Future[BatchResult]]] = deque()
        self._idle: deque[psycopg.Connection] = deque()

    def __enter__(self) -> "Writers":
        for _ in range(WRITERS):
            self._idle.append(self.claim.connect())
            STATEMENTS.create_stage(self._idle[-1])
        self._pool = ThreadPoolExecutor(WRITERS, thread_name_prefix="kintell-writer")
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for conn in self._idle:
            conn.close()

    def write(self, batches: Iterable[Batch]) -> Iterator[BatchResult]:
        """Write the batches and yield their results in order. Errors are raised after all batches in flight end."""
        for number, batch in enumerate(batches):
            if len(self._in_flight) == WRITERS:
                yield self._finish_oldest()
            conn = self._idle.popleft()
            STATEMENTS.begin_turn(conn, job=self.claim.job, number=number)
            self._in_flight.append(
                (batch.block.last_row, self._pool.submit(self._write, conn, batch, number))
            )
        while self._in_flight:
            yield self._finish_oldest()

    def _write(self, conn: psycopg.Connection, batch: Batch, number: int) -> BatchResult:
        job, isolate = self.claim.job, batch.block.first_row <= self.isolate_upto
        await_turn = partial(STATEMENTS.await_turn, conn, job=job, number=number - 1)
        try:
            with conn.transaction():
                return write_import_batch(conn, self.claim, batch, self.rules, await_turn, isolate=isolate)
        finally:
            with suppress(psycopg.Error):
                STATEMENTS.end_turn(conn, job=job, number=number)
            self._idle.append(conn)

    def _finish_oldest(self) -> BatchResult:
        last_row, future = self._in_flight.popleft()
        try:
            return future.result()
        except BaseException:
            self.failed_at = last_row
            self._pool.shutdown(wait=True, cancel_futures=True)
            raise
