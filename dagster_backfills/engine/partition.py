"""Writes one partition in slices of its units, each committed separately: for large partitions and bad units."""

import time
from collections.abc import Callable, Collection, Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import UUID

import psycopg

from dagster_backfills.engine import ledger
from dagster_backfills.engine.failures import CostsConnectionError, is_lost
from dagster_backfills.engine.model import Compute
from dagster_backfills.engine.outcome import Counts
from dagster_backfills.engine.prefetch import prefetched
from dagster_backfills.engine.prepared import PreparedWrite
from dagster_backfills.engine.table.slice import Slice
from dagster_backfills.engine.units import stream_units
from dagster_backfills.engine.work import Work


@dataclass
class SlicedPartition:
    """Writes the tables with units slice by slice, then the set's other tables and the partition's record.

    pause: called between slices.
    after: the last unit that an earlier attempt of the run wrote. snapshot: the one that attempt listed the units with.
    """

    work: Work
    key: str
    pause: Callable[[], None]
    after: str | None = None
    snapshot: str = ""
    counts: dict[str, Counts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._empty: set[str] = set()
        session, sliced = self.work.session, self.work.sliced
        # The tables written at the end read the slices. A rehearsal commits none, so it needs one transaction for all.
        self._one_transaction = session.rehearses and len(sliced) < len(self.work.writes)

    def write(self) -> None:
        """Writes the partition. Units that can't be written go to the failure ledger and don't fail the partition."""
        session = self.work.session
        try:
            self._all_slices()
            if not self._one_transaction:
                session.attempt(self._complete)
        except Exception as error:
            if not self.work.can_bisect(error):
                raise
            # If a table without units failed, all slices were committed, so the tables with units are correct.
            intact = {} if self.work.current in self.work.sliced else self._with_failed_units()
            self.work.partition_failed(self.key, error, intact)

    def _with_failed_units(self) -> dict[str, Counts]:
        failed = [f.asset for f in self.work.outcome.unit_failures if f.partition == self.key]
        return {asset: replace(n, failed_units=failed.count(asset)) for asset, n in self.counts.items()}

    def _all_slices(self) -> None:
        session, losses, reached = self.work.session, 0, self.after
        while True:
            try:
                if self._slices():
                    return
            except Exception as error:
                if not is_lost(error):
                    raise
                session.recover(error)
                losses, reached = losses + 1 if self.after == reached else 1, self.after
                if losses > session.settings.conflict_retries:
                    raise CostsConnectionError(f"its units can't be listed: {error}") from error

    def _slices(self) -> bool:
        """Writes the slices after the unit `after`. Returns False if the connection with the cursor was lost."""
        session, sliced = self.work.session, self.work.sliced
        listed_on, self.work.current = session.conn, sliced[0]
        # Checked once. If another session inserts a row meanwhile, the COPY hits its key and that slice is merged.
        self._empty = {w.asset for w in sliced if w.is_empty(session.conn, [self.key], self.after)}
        source = sliced[0].write.source
        width = source.prefetch if isinstance(source, Compute) and len(sliced) == 1 else 0
        # Taken before the units are listed: a change that the list does not include must keep its stale mark.
        self.snapshot = self.snapshot or session.snapshot()
        session.conn.commit()
        session.tune(session.conn)  # for the transaction that sorts the units
        units = stream_units(session.conn, sliced, self.key, self.after, self.work.size)
        if self._one_transaction:
            self._rehearse(list(units))
            return True
        slices: Generator[tuple[list[str], Any]] = ((slice_, None) for slice_ in units)
        if width and isinstance(source, Compute):
            slices = prefetched(session.connect, width, units, partial(self._prefetch, source))
        with closing(slices):
            for number, (slice_, computed) in enumerate(slices):
                if number:
                    self.pause()
                self._bisect(slice_, self._empty, computed)
                self.after = slice_[-1]
                if session.conn is not listed_on:
                    return False
        return True

    def _prefetch(self, source: Compute, conn: psycopg.Connection, units: list[str]) -> Any:
        self.work.session.tune(conn)
        return source.function(conn, [self.key], units)

    def _rehearse(self, slices: list[list[str]]) -> None:
        """Writes all slices and the remaining tables in one transaction, each after a savepoint."""
        outcome = self.work.outcome
        self.counts = {}  # a lost connection repeats this
        outcome.unit_failures = [f for f in outcome.unit_failures if f.partition != self.key]
        with self.work.session.holding():
            for slice_ in slices:
                self._bisect(slice_, self._empty)
            self.work.session.attempt(self._complete)

    def _bisect(
        self,
        slice_: list[str],
        empty: Collection[str] = (),
        computed: Any = None,
        without: tuple[PreparedWrite, ...] = (),
    ) -> None:
        """Writes a slice and bisects it on bad data. The halves are always merged, because a merge reports the bad row.

        empty: the assets without rows of the slice. without: in a table-by-table rehearsal, the tables that the unit
        has failed in already.
        """
        work = self.work

        def write(units: list[str]) -> None:
            began = time.monotonic()
            first, rows = (empty, computed) if units is slice_ else ((), None)
            work.session.attempt(
                lambda batch_id: self._slice(batch_id, units, first, rows, without), divisible=len(units) > 1
            )
            work.size.took(len(units), time.monotonic() - began)

        for unit, error in work.bisect(slice_, write):
            work.unit_failed(self.key, unit, error)
            if work.rehearsal is not None and work.rehearsal.table_by_table:
                self._bisect([unit], without=(*without, work.current))

    def _slice(
        self,
        batch_id: UUID,
        units: list[str],
        empty: Collection[str],
        computed: Any,
        without: tuple[PreparedWrite, ...],
    ) -> Callable[[], None]:
        began, work = time.monotonic(), self.work
        work.begin([self.key])
        slice_ = Slice([self.key], units, computed=computed)
        counts = {
            write.asset: work.run_write(write, replace(slice_, empty=write.asset in empty))[self.key]
            for write in work.sliced
            if write not in without
        }
        for asset, count in counts.items():
            ledger.resolve(work.session.conn, asset, [self.key], units)
            work.record(
                batch_id, asset, [self.key], count, units=len(units), began=began,
                snapshot=self.snapshot, units_upto=units[-1],
            )  # fmt: skip

        for write in work.sliced:
            write.settle(work.session.conn, [self.key], whole=False)

        def committed() -> None:
            work.outcome.batches += 1
            work.progressed(counts.values())
            for asset, count in counts.items():
                self.counts.setdefault(asset, Counts()).add(count)

        return committed

    def _complete(self, batch_id: UUID) -> Callable[[], None]:
        return self.work.write(batch_id, [self.key], slices=self.counts, snapshot=self.snapshot)
