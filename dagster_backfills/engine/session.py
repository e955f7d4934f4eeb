"""The engine's connection: runs transactions, retries conflicts, reconnects. Not here: what they do (`work`)."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg

from dagster_backfills.engine import ledger
from dagster_backfills.engine.failures import CostsConnectionError, ErrorClass, classify, is_lost
from dagster_backfills.engine.settings import EngineSettings

Connect = Callable[[], AbstractContextManager[psycopg.Connection]]
# The body of a transaction. It gets the batch's ID and returns a function to call after the commit.
Transaction = Callable[[UUID], Callable[[], None]]
Result = TypeVar("Result")

# The last four pin the text format of values, so that the journal's text can be parsed again.
_TUNED = """
    set_config('statement_timeout', %(statement_timeout)s, true),
    set_config('lock_timeout', %(lock_timeout)s, true),
    set_config('work_mem', %(work_mem)s, true),
    set_config('jit', 'off', true),
    set_config('random_page_cost', %(random_page_cost)s, true),
    set_config('datestyle', 'ISO', true),
    set_config('intervalstyle', 'postgres', true),
    set_config('extra_float_digits', '1', true),
    set_config('bytea_output', 'hex', true)
"""
# Waiting for a partition's lock has no time limit, whatever timeouts the role has.
_NO_TIMEOUTS = "set local statement_timeout = 0; set local lock_timeout = 0"
_TUNE = f"select {_TUNED}"
_BEGIN = f"select backfill.begin_batch(%(assets)s::text[], %(partitions)s::text[])::text, {_TUNED}"


@dataclass
class Session:
    """The engine's connection during one run. Use it as a context manager.

    attached: called with each new connection, before its first use.
    conflicted: called after a conflict with another transaction.
    losses: connections lost since the last committed batch of rows.
    rehearses: roll back every transaction instead of committing it.
    """

    connect: Connect
    settings: EngineSettings
    log: Callable[[str], None]
    attached: Callable[[psycopg.Connection], None] = lambda conn: None
    conflicted: Callable[[], None] = lambda: None
    losses: int = 0
    rehearses: bool = False
    _held: bool = False
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "Session":
        self.conn = self._stack.enter_context(self.connect())
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def begin(self, assets: list[str], partitions: list[str]) -> str:
        """Locks the partitions, then sets the timeouts. Returns the snapshot to clear stale marks with."""
        self.conn.execute(_NO_TIMEOUTS)
        binds = {"assets": assets, "partitions": partitions, **self._tuning()}
        row = self.conn.execute(_BEGIN, binds).fetchone()
        assert row is not None
        return row[0]

    def snapshot(self) -> str:
        """Returns the current snapshot."""
        row = self.conn.execute("select pg_current_snapshot()::text").fetchone()
        assert row is not None
        return row[0]

    def tune(self, conn: psycopg.Connection) -> None:
        """Applies timeouts and planner settings to the current transaction of `conn`."""
        conn.execute(_TUNE, self._tuning())

    def _tuning(self) -> dict[str, str]:
        settings = self.settings
        return {
            "work_mem": settings.work_mem,
            "random_page_cost": f"{settings.random_page_cost}",
            "statement_timeout": f"{int(settings.statement_timeout * 1000)}",
            "lock_timeout": f"{int(settings.lock_timeout * 1000)}",
        }

    def attempt(self, work: Transaction, *, divisible: bool = False) -> None:
        """Runs `work` in a transaction and commits. Retries after conflicts and lost connections.

        divisible: the batch can be bisected, so two lost connections are enough to suspect one of its units. Raises
        CostsConnectionError if every attempt loses the connection; otherwise the last attempt's error.
        """
        retries = self.settings.conflict_retries
        conflicts = losses = 0
        while True:
            batch_id = uuid4()
            try:
                self._save()
                committed = work(batch_id)
                self._end()
            except BaseException as error:
                kind = classify(error)
                if kind is ErrorClass.CONNECTION:
                    if self._held:
                        raise  # the held transaction is lost with the connection
                    losses += 1
                    if self._was_committed(batch_id, error):
                        return committed()
                    if losses > (min(retries, 1) if divisible else retries):
                        raise CostsConnectionError(
                            f"the connection was lost on each of {losses} attempts: {error}"
                        ) from error
                    continue
                self.rollback()
                conflicts += 1
                if kind is not ErrorClass.CONFLICT or conflicts > retries:
                    raise
                self.conflicted()
                self._sleep(conflicts)
                continue
            return committed()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """In a rehearsal, keeps one transaction open so that later work sees earlier work; rolls it back at the end."""
        self._held = self.rehearses
        try:
            yield
        finally:
            self._held = False
            if self.rehearses:
                self.rollback()

    def _save(self) -> None:
        if self._held:
            self.conn.execute("savepoint backfill_rehearsed")

    def _end(self) -> None:
        if self._held:
            self.conn.execute("release savepoint backfill_rehearsed")
        elif self.rehearses:
            self.conn.rollback()
        else:
            self.conn.commit()

    def do(self, work: Callable[[psycopg.Connection], Result]) -> Result:
        """Like `attempt`, for work with nothing to do after the commit. Returns the result of `work`."""
        results: list[Result] = []

        def once(_: UUID) -> Callable[[], None]:
            results.append(work(self.conn))
            return lambda: None

        self.attempt(once)
        return results[-1]

    def rollback(self) -> None:
        """Rolls back the transaction, whatever its state. Ignores a lost connection."""
        with suppress(psycopg.Error):
            if self.conn.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                # An interrupt left a statement running. The connection can't be used for another one.
                self.conn.cancel_safe(timeout=5)
                self._reconnect()
            if self._held and self.conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                self.conn.execute("rollback to savepoint backfill_rehearsed")
            else:
                self.conn.rollback()

    def recover(self, error: BaseException) -> None:
        """Reconnects after a pause. Raises `error` after too many consecutive losses."""
        self.losses += 1
        if self.losses > self.settings.max_losses_in_a_row:
            raise error
        self.log("The connection to Postgres was lost; reconnecting.")
        self._sleep(self.losses)
        self._reconnect()

    def _sleep(self, tries: int) -> None:
        """Exponential back-off with jitter."""
        seconds = min(self.settings.retry_seconds * 2.0 ** (tries - 1), self.settings.max_retry_seconds)
        time.sleep(seconds * random.uniform(0.5, 1.5))

    def _reconnect(self) -> None:
        deadline = time.monotonic() + self.settings.reconnect_seconds
        for tries in count(1):
            try:
                with suppress(psycopg.Error):
                    self.conn.close()
                self._stack.close()
                self.conn = self._stack.enter_context(self.connect())
                self.attached(self.conn)
                self.conn.commit()
                return
            except Exception as error:
                if not is_lost(error) or time.monotonic() > deadline:
                    self.losses = self.settings.max_losses_in_a_row  # callers must not try to reconnect again
                    raise
                self._sleep(tries)

    def _was_committed(self, batch_id: UUID, error: BaseException) -> bool:
        """Reconnects and checks whether the batch was committed before the connection was lost."""
        while True:
            self.recover(error)
            try:
                return ledger.batch_is_recorded(self.conn, batch_id)
            except psycopg.Error as next_error:
                if not is_lost(next_error):
                    raise
                error = next_error
