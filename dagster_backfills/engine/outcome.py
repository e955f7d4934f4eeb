"""The result of a run: row counts by asset and partition, and failures."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Counts:
    """Row counts of one asset, for one partition or several."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    failed_units: int = 0

    def add(self, other: "Counts") -> None:
        self.inserted += other.inserted
        self.updated += other.updated
        self.unchanged += other.unchanged
        self.deleted += other.deleted
        self.failed_units += other.failed_units

    @classmethod
    def sum(cls, counts: Iterable["Counts"]) -> "Counts":
        """Returns the sum of all these counts."""
        total = cls()
        for count in counts:
            total.add(count)
        return total

    @property
    def changed(self) -> int:
        return self.inserted + self.updated + self.deleted

    @property
    def rows(self) -> int:
        """Rows that the source returned and that are now in the table."""
        return self.inserted + self.updated + self.unchanged


@dataclass(frozen=True)
class Failure:
    """A unit that could not be written, or a whole partition if `unit` is None."""

    asset: str
    partition: str | None
    unit: str | None
    error_class: str
    sqlstate: str | None
    message: str


@dataclass
class Outcome:
    """The result of one run of the engine. It grows while the run is in progress.

    done: finished partitions, in that order, failed ones too. resumed: partitions that an earlier attempt had finished.
    failed: the failed partitions. counts: row counts by asset and partition. reported: metadata that `WriteSet.around`
    returned, by partition. intact: for failed partitions, counts of the tables that are correct nevertheless.
    batches: committed batches. attempts: transactions started for them.
    """

    done: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)
    unit_failures: list[Failure] = field(default_factory=list)
    counts: dict[str, dict[str, Counts]] = field(default_factory=dict)
    reported: dict[str, dict[str, Any]] = field(default_factory=dict)
    intact: dict[str, dict[str, Counts]] = field(default_factory=dict)
    batches: int = 0
    attempts: int = 0
    seconds: float = 0.0

    @property
    def failures(self) -> list[Failure]:
        """All failures, of partitions and of units."""
        return [*self.failed.values(), *self.unit_failures]

    def is_complete(self, asset: str, partition: str) -> bool:
        """Whether the table holds the correct rows of a finished partition."""
        return partition not in self.failed or partition in self.intact.get(asset, {})

    def counts_of(self, asset: str, partition: str) -> Counts | None:
        """Returns the counts of a complete partition; None if an earlier attempt of the run wrote it."""
        return (self.intact if partition in self.failed else self.counts).get(asset, {}).get(partition)

    def of(self, asset: str, partition: str) -> Counts:
        return self.counts.setdefault(asset, {}).setdefault(partition, Counts())

    def total(self, asset: str) -> Counts:
        return Counts.sum(self.counts.get(asset, {}).values())
