"""One partition cut into slices of its units, each durable: for one that is large, or has a bad unit in it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from dagster_backfills.lib.engine import ledger
from dagster_backfills.lib.engine.failures import is_lost, stands_alone
from dagster_backfills.lib.engine.model import Counts
from dagster_backfills.lib.engine.units import stream_units
from dagster_backfills.lib.engine.work import Work


@dataclass
class SlicedPartition:
    """Slice by slice the tables that have units, then the set's other tables and the account.

    after: the unit up to which an earlier try of the run has come; first_snapshot: what its first slice saw.
    """

    work: Work
    key: str
    after: str | None = None
    first_snapshot: str | None = None
    counts: dict[str, Counts] = field(default_factory=dict)

    def write(self) -> None:
        """Write the partition; units that can't be written are in the ledger, and don't fail it."""
        while True:
            try:
                units = stream_units(
                    self.work.session.conn, self.work.sliced, self.key, self.after, self.work.size
                )
                for slice_ in units:
                    self._bisect(slice_)
                    self.after = slice_[-1]
                break
            except Exception as error:
                # The list of units is gone with the connection: it goes on from the last slice.
                if not is_lost(error):
                    raise
                self.work.session.reconnect()
        try:
            self.work.session.attempt(self._complete)
        except Exception as error:
            if not stands_alone(error):
                raise
            self.work.partition_failed(self.key, error)

    def _bisect(self, units: list[str]) -> None:
        try:
            began = time.monotonic()
            self.work.session.attempt(lambda batch_id: self._slice(batch_id, units))
            self.work.size.took(len(units), time.monotonic() - began)
        except Exception as error:
            if not stands_alone(error):
                raise
            if len(units) == 1:
                self.work.unit_failed(self.key, units[0], error)
                return
            middle = len(units) // 2
            self._bisect(units[:middle])
            self._bisect(units[middle:])

    def _slice(self, batch_id: UUID, units: list[str]) -> Callable[[], None]:
        began, work = time.monotonic(), self.work
        snapshot = work.begin([self.key])
        counts = {write.asset: work.run_write(write, [self.key], units)[self.key] for write in work.sliced}
        for asset, count in counts.items():
            ledger.resolve(work.session.conn, asset, [self.key], units)
            work.record(
                batch_id, asset, [self.key], count, units=len(units), began=began, snapshot=snapshot,
                units_upto=units[-1], first_slice=self.first_snapshot is None,
            )  # fmt: skip

        def committed() -> None:
            work.outcome.batches += 1
            self.first_snapshot = self.first_snapshot or snapshot
            for asset, count in counts.items():
                self.counts.setdefault(asset, Counts()).add(count)

        return committed

    def _complete(self, batch_id: UUID) -> Callable[[], None]:
        began, work = time.monotonic(), self.work
        snapshot = work.begin([self.key])
        # What the slices saw is what the first of them saw.
        snapshot = self.first_snapshot or snapshot
        counts = dict(self.counts)
        for write in work.writes:
            last = Counts()
            if write in work.sliced:
                failed = ledger.resolve_rest(work.session.conn, work.run, write.asset, self.key)
                counts[write.asset] = Counts.sum([counts.get(write.asset, last)], failed_units=failed)
                last = Counts(failed_units=failed)
            else:
                last = counts[write.asset] = work.run_write(write, [self.key], None)[self.key]
                ledger.resolve(work.session.conn, write.asset, [self.key])
            ledger.clear_stale(work.session.conn, write.asset, [self.key], snapshot)
            work.record(batch_id, write.asset, [self.key], last, units=0, began=began, snapshot=snapshot)
        return lambda: work.finished([self.key], {asset: {self.key: n} for asset, n in counts.items()})
