"""The state of a run and its transactions. Each one writes rows, batch records and the failure ledger together."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from dagster_backfills.engine import failures, ledger
from dagster_backfills.engine.failures import Refusals, describe
from dagster_backfills.engine.journal import SHAPE, Shape, new_id
from dagster_backfills.engine.model import WHOLE
from dagster_backfills.engine.outcome import Counts, Failure, Outcome
from dagster_backfills.engine.prepared import PreparedWrite
from dagster_backfills.engine.rehearsal import Rehearsal
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.session import Session
from dagster_backfills.engine.sizing import BatchSize
from dagster_backfills.engine.table.slice import Slice


@dataclass
class Work:
    """One run in progress. current: the write that was attempted last."""

    session: Session
    writes: list[PreparedWrite]
    run: RunIdentity
    outcome: Outcome
    size: BatchSize
    log: Callable[[str], None]
    rehearsal: Rehearsal | None = None

    def __post_init__(self) -> None:
        if self.writes:  # an undo of a run that changed nothing has none
            self.current = self.writes[0]
        self.written = 0  # rows changed by committed batches
        self.refusals = Refusals(self.session.settings.max_failures_in_a_row)
        self.batch_counts: dict[str, dict[str, Counts]] = {}  # of the current batch, by asset
        self._caused_by_rows: set[tuple[str, str]] = set()  # assets and SQLSTATEs
        self._journal_ids: dict[str, int] = {}  # of the current batch, by asset
        self._shapes = {
            write.asset: Jsonb(
                SHAPE.dump_python(Shape.of(write.table, write.write.target.touched), mode="json")
            )
            for write in self.writes
            if write.journals
        }

    @property
    def sliced(self) -> list[PreparedWrite]:
        """The writes that can be done unit by unit; none unless the first of them lists its units."""
        sliced = [write for write in self.writes if write.unit is not None]
        return sliced if sliced and sliced[0].units() is not None else []

    def fit(self, earlier: str, later: str) -> bool:
        """Whether two partitions that follow each other can be in one batch."""
        return all(write.fit(earlier, later) for write in self.writes)

    def begin(self, keys: list[str]) -> str:
        """Starts a batch's transaction and returns its snapshot."""
        self.current = self.writes[0]
        self.outcome.attempts += 1
        self._journal_ids = {}
        return self.session.begin([write.asset for write in self.writes], keys)

    def run_write(self, write: PreparedWrite, slice_: Slice) -> dict[str, Counts]:
        """Executes one write in the batch's transaction and returns counts by partition."""
        self.current = write
        journal_id = new_id() if write.journals else None
        counts = write.run(self.session.conn, replace(slice_, run_id=self.run.run_id, journal_id=journal_id))
        if journal_id is not None:
            self._journal_ids[write.asset] = journal_id
            if self.rehearsal is not None:
                self.rehearsal.collect(self.session.conn, write, journal_id, counts)
        return counts

    def write(
        self,
        batch_id: UUID,
        keys: list[str],
        units: int = 0,
        slices: dict[str, Counts] | None = None,
        snapshot: str = "",
    ) -> Callable[[], None]:
        """Writes whole partitions in one transaction. Returns the function to call after the commit.

        units: the number of units, for the batch record. slices: for a partition that was written unit by unit, the
        counts of its slices by asset. Then only the tables without units and the ledger remain to be written. snapshot:
        the one that its units were listed with.
        """
        began = time.monotonic()
        batch_snapshot = self.begin(keys)
        snapshot = snapshot or batch_snapshot
        counts = self.batch_counts = dict[str, dict[str, Counts]]()
        for write in self.writes:
            # Cleared before the write, so that marks made by the write itself stay.
            ledger.clear_stale(self.session.conn, write.asset, keys, snapshot)
            if slices is not None and write in self.sliced:
                last = Counts(failed_units=self.resolve_rest(write, keys[0]))
                by_partition = {keys[0]: Counts.sum([slices.get(write.asset, Counts()), last])}
            else:
                empty = slices is None and write.is_empty(self.session.conn, keys)
                by_partition = self.run_write(write, Slice(keys, empty=empty))
                ledger.resolve(self.session.conn, write.asset, keys, owned=write.write.owned)
                last = Counts.sum(by_partition.values())
            counts[write.asset] = by_partition
            self.record(batch_id, write.asset, keys, last, units=units, began=began, snapshot=snapshot)
        for write in self.writes:
            write.settle(self.session.conn, keys, whole=True)

        def committed() -> None:
            if slices is None:
                self.progressed(count for by_partition in counts.values() for count in by_partition.values())
            self.finished(keys, counts)

        return committed

    def record(
        self, batch_id: UUID, asset: str, keys: list[str], counts: Counts, *, units: int, began: float,
        snapshot: str, units_upto: str | None = None,
    ) -> None:  # fmt: skip
        """Records one asset's part of a batch. units_upto: the last unit, for a slice of a partition."""
        if self.rehearsal is not None:
            return
        journal_id = self._journal_ids.get(asset)
        ledger.record_batch(
            self.session.conn, self.run, counts, batch_id=batch_id, asset=asset, partitions=keys, units=units,
            seconds=time.monotonic() - began, snapshot=snapshot, units_upto=units_upto, journal_id=journal_id,
            journal=None if journal_id is None else self._shapes[asset],
        )  # fmt: skip

    def resolve_rest(self, write: PreparedWrite, key: str) -> int:
        """Resolves outdated failures of a finished partition. Returns the number of units that remain failed."""
        if self.rehearsal is not None:
            return sum(f.asset == write.asset and f.partition == key for f in self.outcome.unit_failures)
        return ledger.resolve_rest(self.session.conn, self.run, write.asset, key, write.write.owned)

    def progressed(self, counts: Iterable[Counts]) -> None:
        """Call after a batch of rows was committed."""
        self.session.losses = 0
        for count in counts:
            self.refusals.wrote(count)
            self.written += count.changed

    def finished(self, keys: list[str], counts: dict[str, dict[str, Counts]]) -> None:
        """Call after whole partitions were committed."""
        self.outcome.batches += 1
        for asset, by_partition in counts.items():
            for key, value in by_partition.items():
                self.outcome.of(asset, key).add(value)
        self.outcome.done += keys

    def bisect(self, items: list[str], write: Callable[[list[str]], None]) -> Iterator[tuple[str, Exception]]:
        """Writes the items in one batch, or, if their data is bad, each half separately.

        Yields each item that fails on its own with its error; call `partition_failed` or `unit_failed` before the next.
        """
        try:
            write(items)
        except Exception as error:
            if not self.can_bisect(error):
                raise
            if len(items) == 1:
                yield items[0], error
                return
            middle = len(items) // 2
            yield from self.bisect(items[:middle], write)
            yield from self.bisect(items[middle:], write)

    def can_bisect(self, error: BaseException) -> bool:
        """Whether to bisect a batch that raised this error. Not if the same error is raised without any unit."""
        if not failures.can_bisect(error):
            return False
        state = error.sqlstate if isinstance(error, psycopg.Error) else None
        if state and failures.is_unusual(error) and (self.current.asset, state) not in self._caused_by_rows:
            if self._error_without_rows() == state:
                return False
            self._caused_by_rows.add((self.current.asset, state))
        return True

    def _error_without_rows(self) -> str | None:
        """Runs the failed write for no partition and no unit, and returns the SQLSTATE that it raises. Rolls back."""
        write, conn = self.current, self.session.conn
        try:
            self.session.begin([write.asset], [])
            write.run(conn, Slice([], [] if write in self.sliced else None, self.run.run_id))
            ledger.clear_stale(conn, write.asset, [], "1:1:")
        except psycopg.Error as error:
            return error.sqlstate
        except Exception:  # Python code may fail on empty input; that explains nothing
            return None
        finally:
            self.session.rollback()
        return None

    def partition_failed(self, key: str, error: BaseException, intact: Mapping[str, Counts]) -> None:
        """Records a failed partition. intact: counts of the tables that are correct nevertheless."""
        self.outcome.failed[key] = self._record_failure(key, None, error)
        for asset, counts in intact.items():
            self.outcome.intact.setdefault(asset, {})[key] = counts

    def unchanged(self, key: str) -> dict[str, Counts]:
        """After a failed batch, the counts of tables before the failed one that the batch did not change.

        These tables are correct. Changes in other tables were rolled back.
        """
        before = [write.asset for write in self.writes[: self.writes.index(self.current)]]
        counts = {asset: self.batch_counts[asset][key] for asset in before if asset in self.batch_counts}
        return {asset: count for asset, count in counts.items() if not count.changed}

    def unit_failed(self, key: str, unit: str, error: BaseException) -> None:
        name = self.current.name_of(self.session.conn, unit)
        self.outcome.unit_failures.append(self._record_failure(key, name, error))

    def _record_failure(self, key: str, unit: str | None, error: BaseException) -> Failure:
        failure = Failure(self.current.asset, None if key == WHOLE else key, unit, *describe(error))
        if self.rehearsal is None:
            self.session.do(lambda conn: ledger.record_failure(conn, self.run, failure))
        what = f"partition {key!r}" if key != WHOLE else "the table"
        what = what if unit is None else f"{unit!r} of {what}"
        self.log(f"{failure.asset}: {what} could not be written: {failure.message}")
        self.refusals.failed(error)
        return failure
