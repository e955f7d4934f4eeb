"""Two connections that write batches side by side and commit in the file's order. Not here: what a transaction does."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import psycopg

from dagster_backfills.domains.kintell.importing.claims import Claim
from dagster_backfills.domains.kintell.importing.writer import ImportRules, Written, write_import_batch
from dagster_backfills.domains.kintell.rows.batches import Batch
from dagster_backfills.domains.kintell.statements import STATEMENTS

WRITERS = 2


class Writers:
    """Two connections and a thread each. Batches up to row `careful_upto` are written carefully. `failed_at`: the last
    row of the batch that failed first."""

    def __init__(self, claim: Claim, rules: ImportRules, careful_upto: int) -> None:
        self.claim, self.rules, self.careful_upto = claim, rules, careful_upto
        self.failed_at = 0
        self._under_way: deque[tuple[int, Future[Written]]] = deque()
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

    def written(self, batches: Iterable[Batch]) -> Iterator[Written]:
        """Write these; what became of each, in their order. Where one failed, the others are waited for first."""
        for number, batch in enumerate(batches):
            if len(self._under_way) == WRITERS:
                yield self._oldest()
            conn = self._idle.popleft()
            STATEMENTS.begin_turn(conn, job=self.claim.job, number=number)
            self._under_way.append(
                (batch.block.last_row, self._pool.submit(self._write, conn, batch, number))
            )
        while self._under_way:
            yield self._oldest()

    def _write(self, conn: psycopg.Connection, batch: Batch, number: int) -> Written:
        job, careful = self.claim.job, batch.block.first_row <= self.careful_upto
        in_turn = partial(STATEMENTS.await_turn, conn, job=job, number=number - 1)
        try:
            with conn.transaction():
                return write_import_batch(conn, self.claim, batch, self.rules, in_turn, careful=careful)
        finally:
            with suppress(psycopg.Error):
                STATEMENTS.end_turn(conn, job=job, number=number)
            self._idle.append(conn)

    def _oldest(self) -> Written:
        last_row, future = self._under_way.popleft()
        try:
            return future.result()
        except BaseException:
            self.failed_at = last_row
            self._pool.shutdown(wait=True, cancel_futures=True)
            raise
