"""The one batch loop: size, write, account, commit; bisect what fails; wait for what is away."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID, uuid4

import psycopg

from dagster_backfills.lib.engine import ledger
from dagster_backfills.lib.engine.failures import ErrorClass, classify, describe
from dagster_backfills.lib.engine.ledger import PriorWork, RunIdentity
from dagster_backfills.lib.engine.model import Counts, Failure, Outcome, Write
from dagster_backfills.lib.engine.prepared import PreparedWrite
from dagster_backfills.lib.engine.settings import EngineSettings
from dagster_backfills.lib.engine.sizing import BatchSize, batches
from dagster_backfills.lib.engine.throttle import Throttle
from dagster_backfills.lib.engine.units import count_units, stream_units
from dagster_backfills.lib.postgres.address import Address

Result = TypeVar("Result")
Connect = Callable[[], AbstractContextManager[psycopg.Connection]]
WHOLE = ""  # the one "partition" of an asset that has none


@dataclass
class Runner:
    """Writes a set of tables, partition by partition. `outcome` grows while `run` is iterated.

    connect: gives a connection in no transaction.
    address: how the set's partitions lie in its tables, by asset.
    log: takes one line for people to read.
    """

    connect: Connect
    run_identity: RunIdentity
    settings: EngineSettings = field(default_factory=EngineSettings)
    log: Callable[[str], None] = lambda line: None
    outcome: Outcome = field(default_factory=Outcome)
    units_total: int | None = None
    _on_commit: Callable[[], None] = field(default=lambda: None, init=False, repr=False)

    def run(
        self, writes: Sequence[Write], addresses: dict[str, Address], keys: Sequence[str]
    ) -> Iterator[list[str]]:
        """Work `keys` in order, yielding those that finished, batch by batch, written or failed.

        Raises UserError for what no batch could get past, and psycopg.Error where the server stays away.
        """
        began = time.monotonic()
        with ExitStack() as self._stack:
            self._conn = self._stack.enter_context(self.connect())
            self._writes = [
                PreparedWrite.open(self._conn, write, addresses[write.target.asset], number)
                for number, write in enumerate(writes)
            ]
            self._conn.commit()
            self._size, self._throttle = BatchSize(self.settings), Throttle(self.settings)
            outcome = "interrupted"
            try:
                yield from self._all(list(keys))
                outcome = "failed" if self.outcome.failed else "succeeded"
            except Exception:
                outcome = "failed"
                raise
            finally:
                self.outcome.seconds = time.monotonic() - began
                self._close(outcome)

    def _all(self, keys: list[str]) -> Iterator[list[str]]:
        self._weights = self._weigh(keys)
        self.units_total = sum(self._weights.values()) if self._weights else None
        ledger.start(
            self._conn, self.run_identity, [w.asset for w in self._writes], len(keys), self.units_total
        )
        self._prior: PriorWork = ledger.prior_work(self._conn, self.run_identity)
        resumed = [key for key in keys if key in self._prior.partitions]
        if resumed:
            self.outcome.resumed += resumed
            self.log(
                f"{len(resumed):,} of {len(keys):,} partitions were finished by an earlier try of this run."
            )
            yield resumed
        left = [key for key in keys if key not in self._prior.partitions]
        for batch in batches(left, self._weights, self._size):
            trouble = self._attempt(lambda _: self._throttle.pause(self._conn, self._size))
            if trouble:
                self.log(f"The database was not well ({trouble}): the batches are smaller now.")
            self._batch(batch)
            yield batch

    # ---- partitions -------------------------------------------------------------------------------------------

    def _batch(self, keys: list[str]) -> None:
        """Write whole partitions in one transaction; on bad data, halve them until the bad one stands alone."""
        weight = sum(max(self._weights.get(key, 0), 1) for key in keys)
        single = keys[0] if len(keys) == 1 else None
        half_done = single is not None and single in self._prior.upto
        if single is not None and self._sliced is not None and (half_done or weight > self._size.units):
            return self._slices(single)
        try:
            began = time.monotonic()
            self._attempt(lambda batch_id: self._write(batch_id, keys))
            self._size.took(weight, time.monotonic() - began)
        except Exception as error:
            if classify(error) not in (ErrorClass.DATA, ErrorClass.CONFLICT):
                raise
            self._size.shrink()
            if single is None:
                middle = len(keys) // 2
                self._batch(keys[:middle])
                self._batch(keys[middle:])
            elif self._sliced is not None and self._at is self._sliced:
                self._slices(single)
            else:
                self._partition_failed(single, error)

    def _write(self, batch_id: UUID, keys: list[str]) -> None:
        began = time.monotonic()
        snapshot = self._begin(keys)
        counts = {write.asset: self._run(write, keys, None) for write in self._writes}
        units = sum(self._weights.get(key, 0) for key in keys) if self._weights else len(keys)
        for asset, by_partition in counts.items():
            self._account(batch_id, asset, keys, by_partition, units, began, snapshot)
        self._on_commit = lambda: self._finished(keys, counts)

    def _finished(self, keys: list[str], counts: dict[str, dict[str, Counts]]) -> None:
        self.outcome.batches += 1
        for asset, by_partition in counts.items():
            for key, value in by_partition.items():
                self.outcome.of(asset, key).add(value)
        self.outcome.done += keys

    def _account(
        self, batch_id: UUID, asset: str, keys: list[str], counts: dict[str, Counts], units: int, began: float,
        snapshot: str,
    ) -> None:  # fmt: skip
        """Staleness that the batch saw, failures that it mended, and its own row: in its own transaction."""
        total = Counts()
        for value in counts.values():
            total.add(value)
        failing = [
            f.unit for f in self.outcome.unit_failures if f.unit and f.partition in keys and f.asset == asset
        ]
        self._conn.execute(
            "select backfill.clear_stale(%s, %s::text[], %s::pg_snapshot)", [asset, keys, snapshot]
        )
        ledger.resolve(self._conn, asset, None if keys == [WHOLE] else keys, failing=failing)
        ledger.record_batch(
            self._conn, self.run_identity, batch_id, asset, keys, total,
            units=units, seconds=time.monotonic() - began, snapshot=snapshot,
        )  # fmt: skip

    def _partition_failed(self, key: str, error: BaseException) -> None:
        self.outcome.failed[key] = self._enter(self._at.asset, key, None, error)

    def _enter(self, asset: str, key: str, unit: str | None, error: BaseException) -> Failure:
        failure = Failure(asset, None if key == WHOLE else key, unit, *describe(error))
        self._attempt(lambda _: ledger.record_failure(self._conn, self.run_identity, failure))
        what = f"{unit!r} of partition {key!r}" if unit is not None else f"partition {key!r}"
        self.log(f"{asset}: {what} could not be written: {failure.message}")
        return failure

    # ---- units within one partition ---------------------------------------------------------------------------

    @property
    def _sliced(self) -> PreparedWrite | None:
        """The write whose units a partition is cut into: the first that names them."""
        return next((w for w in self._writes if w.merge_unit is not None and w.units() is not None), None)

    def _slices(self, key: str) -> None:
        """Write one partition's units slice by slice, each durable, then the set's other tables and the account."""
        write = self._sliced
        assert write is not None
        after = self._prior.upto.get(key)
        self._first_snapshot = self._prior.snapshots.get(key)
        self._slice_counts = Counts()
        while True:
            try:
                for units in stream_units(self._conn, write, key, after, self._size):
                    self._slice(write, key, units)
                    after = units[-1]
                break
            except Exception as error:
                if classify(error) is not ErrorClass.CONNECTION:
                    raise
                self._reconnect()
        try:
            self._attempt(lambda batch_id: self._complete(batch_id, write, key))
        except Exception as error:
            if classify(error) not in (ErrorClass.DATA, ErrorClass.CONFLICT):
                raise
            self._partition_failed(key, error)

    def _slice(self, write: PreparedWrite, key: str, units: list[str]) -> None:
        try:
            began = time.monotonic()
            self._attempt(lambda batch_id: self._write_slice(batch_id, write, key, units))
            self._size.took(len(units), time.monotonic() - began)
        except Exception as error:
            if classify(error) not in (ErrorClass.DATA, ErrorClass.CONFLICT):
                raise
            if len(units) == 1:
                self.outcome.unit_failures.append(self._enter(write.asset, key, units[0], error))
                return
            middle = len(units) // 2
            self._slice(write, key, units[:middle])
            self._slice(write, key, units[middle:])

    def _write_slice(self, batch_id: UUID, write: PreparedWrite, key: str, units: list[str]) -> None:
        began = time.monotonic()
        snapshot = self._begin([key])
        counts = self._run(write, [key], units)[key]
        ledger.resolve(self._conn, write.asset, None if key == WHOLE else [key], units=units)
        ledger.record_batch(
            self._conn, self.run_identity, batch_id, write.asset, [key], counts,
            units=len(units), seconds=time.monotonic() - began, snapshot=snapshot,
            units_upto=units[-1], first_slice=self._first_snapshot is None,
        )  # fmt: skip

        def committed() -> None:
            self.outcome.batches += 1
            self._first_snapshot = self._first_snapshot or snapshot
            self._slice_counts.add(counts)

        self._on_commit = committed

    def _complete(self, batch_id: UUID, sliced: PreparedWrite, key: str) -> None:
        began = time.monotonic()
        snapshot = self._begin([key])
        counts = {w.asset: self._run(w, [key], None) for w in self._writes if w is not sliced}
        failed = sum(f.partition == key or key == WHOLE for f in self.outcome.unit_failures)
        for asset, by_partition in (counts | {sliced.asset: {key: Counts(failed_units=failed)}}).items():
            # What the slices saw is what the first of them saw.
            self._account(batch_id, asset, [key], by_partition, 0, began, self._first_snapshot or snapshot)
        self._slice_counts.failed_units = failed
        self._on_commit = lambda: self._finished([key], counts | {sliced.asset: {key: self._slice_counts}})

    # ---- one transaction --------------------------------------------------------------------------------------

    def _begin(self, keys: list[str]) -> str:
        """Take the partitions' locks, then the time-outs, then the snapshot that staleness is cleared by."""
        for asset in sorted({write.asset for write in self._writes}):
            self._conn.execute("select backfill.lock_partitions(%s, %s::text[])", [asset, keys])
        row = self._conn.execute(
            "select pg_current_snapshot()::text, set_config('statement_timeout', %s, true),"
            " set_config('lock_timeout', %s, true), set_config('plan_cache_mode', 'force_custom_plan', true),"
            " set_config('jit', 'off', true), set_config('work_mem', %s, true)",
            [f"{int(self.settings.statement_timeout * 1000)}", f"{int(self.settings.lock_timeout * 1000)}",
             self.settings.work_mem],
        ).fetchone()  # fmt: skip
        assert row is not None
        return row[0]

    def _run(self, write: PreparedWrite, keys: list[str], units: list[str] | None) -> dict[str, Counts]:
        self._at = write
        return write.run(self._conn, keys, units, self.run_identity.run_id)

    def _attempt(self, work: Callable[[UUID], Result]) -> Result:
        """Run `work` in a transaction and commit. Conflicts and a lost server cost another try, not the batch."""
        conflicts = 0
        while True:
            batch_id = uuid4()
            self._on_commit = _nothing
            try:
                result = work(batch_id)
                self._conn.commit()
            except BaseException as error:
                kind = classify(error)
                if kind is ErrorClass.CONNECTION:
                    self._reconnect()
                    if not ledger.batch_is_recorded(self._conn, batch_id):
                        continue
                    # The commit had reached the server; only its answer was lost.
                    self._on_commit()
                    return result
                self._rollback()
                conflicts += 1
                if kind is ErrorClass.CONFLICT and conflicts <= self.settings.conflict_retries:
                    self._size.shrink()
                    time.sleep(random.uniform(0.05, 0.2) * 2**conflicts)
                    continue
                raise
            self._on_commit()
            return result

    def _rollback(self) -> None:
        with suppress(psycopg.Error):
            if self._conn.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self._conn.cancel_safe(timeout=5)
            self._conn.rollback()

    def _reconnect(self) -> None:
        """A new connection, waited for with growing steps; frames are staged again on it."""
        self.log("The connection to Postgres was lost; trying again.")
        deadline, step = time.monotonic() + self.settings.reconnect_seconds, 0.2
        while True:
            try:
                with suppress(psycopg.Error):
                    self._conn.close()
                self._stack.close()
                self._conn = self._stack.enter_context(self.connect())
                for write in self._writes:
                    write.attach(self._conn)
                self._conn.commit()
                return
            except Exception as error:
                if not is_lost(error) or time.monotonic() > deadline:
                    raise
                time.sleep(step)
                step = min(step * 2, 5.0)

    def _weigh(self, keys: list[str]) -> dict[str, int]:
        write = self._sliced
        return {} if write is None else count_units(self._conn, write, keys)

    def _close(self, outcome: str) -> None:
        self._rollback()
        with suppress(psycopg.Error):
            ledger.finish(self._conn, self.run_identity, outcome)


def _nothing() -> None:
    pass


def is_lost(error: BaseException) -> bool:
    """Whether the server is away; SQLAlchemy wraps what psycopg says while connecting."""
    original = getattr(error, "orig", None) or error
    return classify(original) is ErrorClass.CONNECTION
