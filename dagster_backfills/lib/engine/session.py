"""One connection and one transaction at a time: committed, tried again, or given up. Not here: what is in it."""

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import psycopg

from dagster_backfills.lib.engine import ledger
from dagster_backfills.lib.engine.failures import ErrorClass, classify, is_lost
from dagster_backfills.lib.engine.settings import EngineSettings

Connect = Callable[[], AbstractContextManager[psycopg.Connection]]
# A transaction's work: given the batch's id, it writes, and returns what is to be done once that is committed.
Work = Callable[[UUID], Callable[[], None]]

_TUNED = """
    set_config('statement_timeout', %(statement_timeout)s, true),
    set_config('lock_timeout', %(lock_timeout)s, true),
    set_config('work_mem', %(work_mem)s, true),
    set_config('jit', 'off', true),
    set_config('random_page_cost', %(random_page_cost)s, true)
"""
_TUNE = f"select {_TUNED}"
_BEGIN = f"select backfill.begin_batch(%(assets)s::text[], %(partitions)s::text[])::text, {_TUNED}"


@dataclass
class Session:
    """The engine's connection, for the time of one run.

    attached: is called on each new connection, before anything else.
    conflicted: is called when another transaction was in the way of this one.
    """

    connect: Connect
    settings: EngineSettings
    log: Callable[[str], None]
    attached: Callable[[psycopg.Connection], None] = lambda conn: None
    conflicted: Callable[[], None] = lambda: None
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "Session":
        self.conn = self._stack.enter_context(self.connect())
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def begin(self, assets: list[str], partitions: list[str]) -> str:
        """Take the partitions' locks, then the time-outs, and return the snapshot that staleness is cleared by."""
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

    def attempt(self, work: Work) -> None:
        """Run `work` in a transaction and commit. Conflicts and a lost server cost another try, not the batch."""
        conflicts = losses = 0
        while True:
            batch_id = uuid4()
            try:
                committed = work(batch_id)
                self.conn.commit()
            except BaseException as error:
                kind = classify(error)
                if kind is ErrorClass.CONNECTION:
                    losses += 1
                    if losses > self.settings.conflict_retries:
                        raise  # it is this batch that costs the server its connections
                    if not self._recorded_after_all(batch_id):
                        continue
                    committed()
                    return
                self.rollback()
                conflicts += 1
                if kind is not ErrorClass.CONFLICT or conflicts > self.settings.conflict_retries:
                    raise
                self.conflicted()
                time.sleep(random.uniform(0.05, 0.2) * 2**conflicts)
                continue
            committed()
            return

    def do(self, work: Callable[[psycopg.Connection], None]) -> None:
        """The same for what needs nothing done after it."""

        def once(_: UUID) -> Callable[[], None]:
            work(self.conn)
            return _nothing

        self.attempt(once)

    def rollback(self) -> None:
        """End the transaction, whatever its state; a lost connection has none."""
        with suppress(psycopg.Error):
            if self.conn.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                # Whatever interrupted us left a statement without its answer: such a connection takes no other.
                self.conn.cancel_safe(timeout=5)
                self._open_again()
            self.conn.rollback()

    def reconnect(self) -> None:
        """A new connection, waited for with growing steps."""
        self.log("The connection to Postgres was lost; trying again.")
        self._open_again()

    def _open_again(self) -> None:
        deadline, step = time.monotonic() + self.settings.reconnect_seconds, 0.2
        while True:
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
                    raise
                time.sleep(step)
                step = min(step * 2, 5.0)

    def _recorded_after_all(self, batch_id: UUID) -> bool:
        """Whether the commit had reached the server, and only its answer was lost."""
        while True:
            self.reconnect()
            try:
                return ledger.batch_is_recorded(self.conn, batch_id)
            except psycopg.Error as error:
                if not is_lost(error):
                    raise


def _nothing() -> None:
    pass
