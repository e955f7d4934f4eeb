"""What the parts of a run share, and the transactions they are made of: rows, account and ledger together."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

import psycopg

from dagster_backfills.engine import failures, ledger
from dagster_backfills.engine.failures import Refusals, describe
from dagster_backfills.engine.journal import Shape, new_id
from dagster_backfills.engine.ledger import RunIdentity
from dagster_backfills.engine.model import WHOLE
from dagster_backfills.engine.outcome import Counts, Failure, Outcome
from dagster_backfills.engine.prepared import PreparedWrite
from dagster_backfills.engine.rehearsal import Rehearsal
from dagster_backfills.engine.session import Session
from dagster_backfills.engine.sizing import BatchSize
from dagster_backfills.engine.table.slice import Slice


@dataclass
class Work:
    """One run at work. `at` is the write that was tried last."""

    session: Session
    writes: list[PreparedWrite]
    run: RunIdentity
    outcome: Outcome
    size: BatchSize
    log: Callable[[str], None]
    rehearsal: Rehearsal | None = None

    def __post_init__(self) -> None:
        self.at = self.writes[0]
        self.written = 0  # rows changed by batches that are committed
        self.refusals = Refusals(self.session.settings.max_failures_in_a_row)
        self.tried: dict[str, dict[str, Counts]] = {}  # of the batch at work, by asset
        self._of_rows: set[tuple[str, str]] = set()
        self._journal: dict[str, int] = {}  # of the batch at work, by asset
        self._shapes = {
            write.asset: Shape.of(write.table, write.write.target.touched).note()
            for write in self.writes
            if write.journals
        }

    @property
    def sliced(self) -> list[PreparedWrite]:
        """The writes that a partition can be cut into units of, if the first of them lists its units."""
        sliced = [write for write in self.writes if write.unit is not None]
        return sliced if sliced and sliced[0].units() is not None else []

    def begin(self, keys: list[str]) -> str:
        """Open a batch's transaction and return its snapshot."""
        self.at = self.writes[0]
        self.outcome.attempts += 1
        self._journal = {}
        return self.session.begin([write.asset for write in self.writes], keys)

    def run_write(self, write: PreparedWrite, slice_: Slice) -> dict[str, Counts]:
        """Write it in the batch's transaction, in the run's name."""
        self.at = write
        journal_id = new_id() if write.journals else None
        counts = write.run(self.session.conn, replace(slice_, run_id=self.run.run_id, journal_id=journal_id))
        if journal_id is not None:
            self._journal[write.asset] = journal_id
            if self.rehearsal is not None:
                self.rehearsal.look(self.session.conn, write, journal_id, counts)
        return counts

    def write(
        self,
        batch_id: UUID,
        keys: list[str],
        units: int = 0,
        slices: dict[str, Counts] | None = None,
        snapshot: str = "",
    ) -> Callable[[], None]:
        """Whole partitions, in one transaction.

        slices: of a partition whose units are written already, their counts by asset; snapshot: by which these units
        were listed. What is left of it are the other tables, and the ledger.
        """
        began = time.monotonic()
        begun = self.begin(keys)
        snapshot = snapshot or begun
        counts = self.tried = dict[str, dict[str, Counts]]()
        for write in self.writes:
            # Before it computes: what it marks as it writes is another computation's.
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
        if self.rehearsal is not None:
            return
        ledger.record_batch(
            self.session.conn, self.run, batch_id, asset, keys, counts,
            units=units, seconds=time.monotonic() - began, snapshot=snapshot,
            units_upto=units_upto, journal_id=self._journal.get(asset), journal=self._shapes.get(asset),
        )  # fmt: skip

    def resolve_rest(self, write: PreparedWrite, key: str) -> int:
        """Close what is left in the ledger of a partition that is through. Returns how many units of it failed."""
        if self.rehearsal is not None:
            return sum(f.asset == write.asset and f.partition == key for f in self.outcome.unit_failures)
        return ledger.resolve_rest(self.session.conn, self.run, write.asset, key, write.write.owned)

    def forget_failures(self, key: str) -> None:
        """Begin a partition's rehearsal anew."""
        self.outcome.unit_failures = [f for f in self.outcome.unit_failures if f.partition != key]

    def progressed(self, counts: Iterable[Counts]) -> None:
        """A batch of rows is committed."""
        self.session.losses = 0
        for count in counts:
            self.refusals.wrote(count)
            self.written += count.changed

    def finished(self, keys: list[str], counts: dict[str, dict[str, Counts]]) -> None:
        """Partitions are committed."""
        self.outcome.batches += 1
        for asset, by_partition in counts.items():
            for key, value in by_partition.items():
                self.outcome.of(asset, key).add(value)
        self.outcome.done += keys

    def stands_alone(self, error: BaseException) -> bool:
        """Whether a batch that raised this is cut in two: not where it is raised over no unit at all as well."""
        if not failures.stands_alone(error):
            return False
        state = error.sqlstate if isinstance(error, psycopg.Error) else None
        if state and failures.is_unusual(error) and (self.at.asset, state) not in self._of_rows:
            if self._nothing_raises() == state:
                return False
            self._of_rows.add((self.at.asset, state))
        return True

    def _nothing_raises(self) -> str | None:
        """SQLSTATE of what the write that failed raises over no partition and no unit; nothing of it is kept."""
        write, conn = self.at, self.session.conn
        try:
            self.session.begin([write.asset], [])
            write.run(conn, Slice([], [] if write in self.sliced else None, self.run.run_id))
            ledger.clear_stale(conn, write.asset, [], "1:1:")
        except psycopg.Error as error:
            return error.sqlstate
        except Exception:  # a rule that can't do with nothing says nothing of the error
            return None
        finally:
            self.session.rollback()
        return None

    def partition_failed(self, key: str, error: BaseException, kept: Mapping[str, Counts]) -> None:
        """Enter it. kept: tables that are right in the partition although it failed, with their counts."""
        self.outcome.failed[key] = self._enter(key, None, error)
        for asset, counts in kept.items():
            self.outcome.stood.setdefault(asset, {})[key] = counts

    def unchanged(self, key: str) -> dict[str, Counts]:
        """Of the batch that failed over this partition: the tables before the one at fault that were right before it.

        What it changed in others is rolled back with it.
        """
        before = self.writes[: self.writes.index(self.at)]
        tried = {write.asset: self.tried[write.asset][key] for write in before if write.asset in self.tried}
        return {asset: counts for asset, counts in tried.items() if not counts.changed}

    def unit_failed(self, key: str, unit: str, error: BaseException) -> None:
        self.outcome.unit_failures.append(self._enter(key, self.at.name_of(self.session.conn, unit), error))

    def _enter(self, key: str, unit: str | None, error: BaseException) -> Failure:
        failure = Failure(self.at.asset, None if key == WHOLE else key, unit, *describe(error))
        if self.rehearsal is None:
            self.session.do(lambda conn: ledger.record_failure(conn, self.run, failure))
        what = f"partition {key!r}" if key != WHOLE else "the table"
        what = what if unit is None else f"{unit!r} of {what}"
        self.log(f"{failure.asset}: {what} could not be written: {failure.message}")
        self.refusals.failed(error)
        return failure
