"""The batch loop: sizes, writes and commits batches, and bisects those that fail.

Not here: transactions and retries (`session`).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import psycopg

from dagster_backfills.engine import ledger
from dagster_backfills.engine.failures import NullUnitError
from dagster_backfills.engine.model import Around, Write
from dagster_backfills.engine.outcome import Outcome
from dagster_backfills.engine.partition import SlicedPartition
from dagster_backfills.engine.prepared import PreparedWrite
from dagster_backfills.engine.rehearsal import Rehearsal
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.session import Connect, Session
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.sizing import BatchSize, batches
from dagster_backfills.engine.throttle import Throttle
from dagster_backfills.engine.units import count_units
from dagster_backfills.engine.work import Work

__all__ = ["Connect", "Runner"]


@dataclass
class Runner:
    """Writes a set of tables, partition by partition. Iterate over `run`; `outcome` grows as it proceeds.

    connect: returns a connection (a context manager) that is in no transaction.
    run_identity: the run to record the work under.
    log: receives log lines.
    rehearsal: if given, every transaction is rolled back after this object has collected examples from it.
    """

    connect: Connect
    run_identity: RunIdentity
    settings: EngineSettings = field(default_factory=EngineSettings)
    log: Callable[[str], None] = lambda line: None
    outcome: Outcome = field(default_factory=Outcome)
    units_total: int | None = None
    units_done: int = 0
    rehearsal: Rehearsal | None = None

    def run(
        self,
        writes: Sequence[Write],
        keys: Sequence[str],
        around: Around | None = None,
    ) -> Iterator[list[str]]:
        """Writes the partitions `keys` in order. Yields the partitions of each finished batch, including failed ones.

        writes: the tables, in the order in which each batch writes them, each with its address. around: see `WriteSet`.

        Units and partitions that can't be written do not raise: they are in the failure ledger and in `outcome`. Raises
        UserError for an error that every batch would meet, and psycopg.Error if the server stays unreachable.
        """
        if around is not None:
            yield from self._one_by_one(writes, keys, around)
            return

        def prepare(conn: psycopg.Connection) -> list[PreparedWrite]:
            return [
                PreparedWrite.open(
                    conn,
                    write,
                    number,
                    keys,
                    # A rehearsal reads its examples from the journal before it rolls back.
                    journal=self.rehearsal is not None or (self.settings.journal and write.target.journal),
                )
                for number, write in enumerate(writes)
            ]

        yield from self.run_prepared(prepare, keys)

    def run_prepared(
        self, prepare: Callable[[psycopg.Connection], list[PreparedWrite]], keys: Sequence[str]
    ) -> Iterator[list[str]]:
        """Like `run`, with writes that `prepare` returns for a connection."""
        began = time.monotonic()
        with Session(self.connect, self.settings, self.log, rehearses=self.rehearsal is not None) as session:
            prepared = prepare(session.conn)
            session.conn.commit()
            size = BatchSize(self.settings)

            def attach(conn: psycopg.Connection) -> None:
                for write in prepared:
                    write.attach(conn)

            session.attached = attach
            session.conflicted = size.shrink
            self._work = Work(
                session, prepared, self.run_identity, self.outcome, size, self.log, self.rehearsal
            )
            outcome = "interrupted"
            try:
                yield from self._all(list(keys))
                outcome = "failed" if self.outcome.failed else "succeeded"
            except Exception:
                outcome = "failed"
                raise
            finally:
                self.outcome.seconds += time.monotonic() - began
                self._close(outcome)

    def _one_by_one(
        self, writes: Sequence[Write], keys: Sequence[str], around: Around
    ) -> Iterator[list[str]]:
        """Writes each partition separately, inside its call of `around`."""
        for key in keys:

            def work(identity: RunIdentity, key: str = key) -> Outcome:
                for _ in replace(self, run_identity=identity).run(writes, [key]):
                    pass
                return self.outcome

            self.outcome.reported[key] = around(key, self.run_identity, work)
            yield [key]

    def _all(self, keys: list[str]) -> Iterator[list[str]]:
        work = self._work
        weights = self._weigh(keys)
        self.units_total = sum(weights.values()) if weights else None
        assets = [write.asset for write in work.writes]
        # A rehearsal changes nothing, and an undo must work while the backfill is paused: neither obeys the controls.
        controlled = assets if self.rehearsal is None and work.run.undoes is None else []
        self._throttle = Throttle(self.settings, assets=controlled, log=self.log)
        self._prior = ledger.PriorWork()
        if self.rehearsal is None:
            work.session.do(lambda conn: ledger.start(conn, work.run, assets, len(keys), self.units_total))
            self._prior = ledger.prior_work(work.session.conn, work.run, assets)
        resumed = [key for key in keys if key in self._prior.partitions]
        if resumed:
            self.outcome.resumed += resumed
            self.log(
                f"{len(resumed):,} of {len(keys):,} partitions were finished by an earlier attempt of this run."
            )
            self.units_done += sum(weights.get(key, 0) for key in resumed)
            yield resumed
        left = [key for key in keys if key not in self._prior.partitions]
        for batch in batches(left, weights, work.size, work.fit):
            self._pause()
            self._batch(batch, weights)
            self.units_done += sum(weights.get(key, 0) for key in batch)
            yield batch

    def _batch(self, batch: list[str], weights: dict[str, int]) -> None:
        """Writes whole partitions in one transaction, and bisects them on bad data until the bad one is isolated."""
        work = self._work

        def write(keys: list[str]) -> None:
            weight = sum(max(weights.get(key, 0), 1) for key in keys)
            if (
                len(keys) == 1
                and work.sliced
                and (keys[0] in self._prior.reached or weight > work.size.units)
            ):
                return self._slices(keys[0])
            began = time.monotonic()
            units = sum(weights.get(key, 0) for key in keys) if weights else len(keys)
            divisible = len(keys) > 1 or bool(work.sliced)
            work.session.attempt(lambda batch_id: work.write(batch_id, keys, units), divisible=divisible)
            work.size.took(weight, time.monotonic() - began)

        for key, error in work.bisect(batch, write):
            if work.current in work.sliced and not isinstance(error, NullUnitError):
                self._slices(key)
            else:
                work.partition_failed(key, error, work.unchanged(key))

    def _slices(self, key: str) -> None:
        SlicedPartition(self._work, key, self._pause, *self._prior.reached.get(key, ())).write()

    def _pause(self) -> None:
        work = self._work
        reason = work.session.do(lambda conn: self._throttle.pause(conn, work.size, work.written))
        if reason:
            self.log(f"The database was overloaded ({reason}): batches are smaller now.")

    def _weigh(self, keys: list[str]) -> dict[str, int]:
        work, session = self._work, self._work.session
        if not work.sliced:
            return {}
        session.tune(session.conn)
        try:
            return count_units(session.conn, work.sliced[0], keys)
        except Exception as error:
            if not work.can_bisect(error):
                raise
            session.rollback()  # one partition's units can't be listed; that partition will fail on its own
            return {}

    def _close(self, outcome: str) -> None:
        session = self._work.session
        session.rollback()
        try:
            if self.rehearsal is None:
                ledger.finish(session.conn, self.run_identity, outcome)
            for write in self._work.writes:
                write.detach(session.conn)
            session.conn.commit()
        except psycopg.Error as error:
            self.log(f"The run's record could not be closed: {error}")
