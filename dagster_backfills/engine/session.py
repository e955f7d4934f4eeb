"""One connection and one transaction at a time: committed, tried again, or given up. Not here: what is in it."""

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
# A transaction's work: given the batch's id, it writes, and returns what is to be done once that is committed.
Transaction = Callable[[UUID], Callable[[], None]]
Result = TypeVar("Result")

# The last four are what the journal's text can be read again by.
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
# The wait for a partition's lock is no statement's fault: a role's own time-outs don't end it.
_PATIENT = "set local statement_timeout = 0; set local lock_timeout = 0"
_TUNE = f"select {_TUNED}"
_BEGIN = f"select backfill.begin_batch(%(assets)s::text[], %(partitions)s::text[])::text, {_TUNED}"


@dataclass
class Session:
    """The engine's connection, for the time of one run.

    attached: is called on each new connection, before anything else.
    conflicted: is called when another transaction was in the way of this one.
    losses: connections lost since a batch of rows was committed.
    rehearses: nothing is kept: each transaction is rolled back where it would be committed.
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
        """Take the partitions' locks, then the time-outs, and return the snapshot that staleness is cleared by."""
        self.conn.execute(_PATIENT)
        binds = {"assets": assets, "partitions": partitions, **self._tuning()}
        row = self.conn.execute(_BEGIN, binds).fetchone()
        assert row is not None
        return row[0]

    def snapshot(self) -> str:
        """What the session would see now."""
        row = self.conn.execute("select pg_current_snapshot()::text").fetchone()
        assert row is not None
        return row[0]

    def tune(self, conn: psycopg.Connection) -> None:
        """Time-outs and the planner's settings, for the transaction that `conn` is in."""
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
        """Run `work` in a transaction and commit. Conflicts and a lost server cost another try, not the batch.

        divisible: it can be cut, so that two lost connections are enough to suspect a part of it. Raises
        CostsConnectionError where the connection is lost at each try, and what else it was that the last try met.
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
                        raise  # what was held is gone with it
                    losses += 1
                    if self._recorded_after_all(batch_id, error):
                        return committed()
                    if losses > (min(retries, 1) if divisible else retries):
                        raise CostsConnectionError(
                            f"the connection was lost each of {losses} times that this was tried: {error}"
                        ) from error
                    continue
                self.rollback()
                conflicts += 1
                if kind is not ErrorClass.CONFLICT or conflicts > retries:
                    raise
                self.conflicted()
                self._rest(conflicts)
                continue
            return committed()

    @contextmanager
    def holding(self) -> Iterator[bool]:
        """In a rehearsal, what is done meanwhile sees what was done before it; all of it is rolled back at the end."""
        self._held = self.rehearses
        try:
            yield self._held
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
        """The same for what needs nothing done after it; returns what `work` does."""
        results: list[Result] = []

        def once(_: UUID) -> Callable[[], None]:
            results.append(work(self.conn))
            return lambda: None

        self.attempt(once)
        return results[-1]

    def rollback(self) -> None:
        """End the transaction, whatever its state; a lost connection has none."""
        with suppress(psycopg.Error):
            if self.conn.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                # Whatever interrupted us left a statement without its answer: such a connection takes no other.
                self.conn.cancel_safe(timeout=5)
                self._open_again()
            if self._held and self.conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                self.conn.execute("rollback to savepoint backfill_rehearsed")
            else:
                self.conn.rollback()

    def recover(self, error: BaseException) -> None:
        """Connect again after a rest. Raises `error` where too many losses have followed each other."""
        self.losses += 1
        if self.losses > self.settings.max_losses_in_a_row:
            raise error
        self.log("The connection to Postgres was lost; trying again.")
        self._rest(self.losses)
        self._open_again()

    def _rest(self, tries: int) -> None:
        """Twice as long after each try, and never quite as long as somebody else."""
        seconds = min(self.settings.retry_seconds * 2.0 ** (tries - 1), self.settings.max_retry_seconds)
        time.sleep(seconds * random.uniform(0.5, 1.5))

    def _open_again(self) -> None:
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
                    self.losses = self.settings.max_losses_in_a_row  # nobody waits for it once more
                    raise
                self._rest(tries)

    def _recorded_after_all(self, batch_id: UUID, error: BaseException) -> bool:
        """Connect again, and see whether the commit had reached the server, and only its answer was lost."""
        while True:
            self.recover(error)
            try:
                return ledger.batch_is_recorded(self.conn, batch_id)
            except psycopg.Error as another:
                if not is_lost(another):
                    raise
                error = another
