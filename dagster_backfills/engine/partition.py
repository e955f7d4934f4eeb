"""One partition cut into slices of its units, each durable: for one that is large, or has a bad unit in it."""

import time
from collections.abc import Callable, Generator
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
    """Slice by slice the tables that have units, then the set's other tables and the account.

    pause: is called between two slices.
    after: the unit up to which an earlier try of the run has come; snapshot: by which its units were first listed.
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
        # What is written at the end reads the slices, which a rehearsal has not committed by then.
        self._together = session.rehearses and len(sliced) < len(self.work.writes)

    def write(self) -> None:
        """Write the partition; units that can't be written are in the ledger, and don't fail it."""
        session = self.work.session
        try:
            self._all_slices()
            if not self._together:
                session.attempt(self._complete)
        except Exception as error:
            if not self.work.stands_alone(error):
                raise
            # The slices are committed: where all of them are through, it is another table that failed.
            kept = {} if self.work.at in self.work.sliced else self._with_failed_units()
            self.work.partition_failed(self.key, error, kept)

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
        """The slices from behind `after` on. False where the list of units is gone, with its connection."""
        session, sliced = self.work.session, self.work.sliced
        listed_on = session.conn
        # Looked at once. Should a row come in between, its key refuses the COPY, and that slice is merged.
        self._empty = {w.asset for w in sliced if w.is_empty(session.conn, [self.key], self.after)}
        source = sliced[0].write.source
        width = source.prefetch if isinstance(source, Compute) and len(sliced) == 1 else 0
        # Before the units are listed: a change that the list doesn't know must keep its mark.
        self.snapshot = self.snapshot or session.snapshot()
        session.conn.commit()
        session.tune(session.conn)  # for the transaction that sorts them
        units = stream_units(session.conn, sliced, self.key, self.after, self.work.size)
        if self._together:
            self._rehearse(list(units))
            return True
        slices: Generator[tuple[list[str], Any]] = ((slice_, None) for slice_ in units)
        if width and isinstance(source, Compute):
            slices = prefetched(session.connect, width, units, partial(self._prefetch, source))
        with closing(slices):
            for number, (slice_, computed) in enumerate(slices):
                if number:
                    self.pause()
                self._bisect(slice_, computed, whole=True)
                self.after = slice_[-1]
                if session.conn is not listed_on:
                    return False
        return True

    def _prefetch(self, source: Compute, conn: psycopg.Connection, units: list[str]) -> Any:
        self.work.session.tune(conn)
        return source.function(conn, [self.key], units)

    def _rehearse(self, slices: list[list[str]]) -> None:
        """All slices and the end in one transaction, each behind a savepoint."""
        self.counts = {}
        self.work.forget_failures(self.key)
        with self.work.session.holding():
            for slice_ in slices:
                self._bisect(slice_, whole=True)
            self.work.session.attempt(self._complete)

    def _bisect(
        self,
        units: list[str],
        computed: Any = None,
        *,
        whole: bool = False,
        without: tuple[PreparedWrite, ...] = (),
    ) -> None:
        """Write a slice, and on bad data halve it. The halves are merged: it is the merge that names what is bad.

        without: tables in which the unit has failed, in a rehearsal of tables that are written apart.
        """
        empty = self._empty if whole else set()
        try:
            began = time.monotonic()
            self.work.session.attempt(
                lambda batch_id: self._slice(batch_id, units, empty, computed, without),
                divisible=len(units) > 1,
            )
            self.work.size.took(len(units), time.monotonic() - began)
        except Exception as error:
            if not self.work.stands_alone(error):
                raise
            if len(units) == 1:
                self.work.unit_failed(self.key, units[0], error)
                if self.work.rehearsal is not None and self.work.rehearsal.apart:
                    self._bisect(units, without=(*without, self.work.at))
                return
            middle = len(units) // 2
            self._bisect(units[:middle])
            self._bisect(units[middle:])

    def _slice(
        self,
        batch_id: UUID,
        units: list[str],
        empty: set[str],
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
