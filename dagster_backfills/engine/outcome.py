"""What a run did: rows by asset and partition, and what could not be written."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Counts:
    """Rows of one asset, in one partition or in all."""

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
        """All of these together."""
        total = cls()
        for count in counts:
            total.add(count)
        return total

    @property
    def changed(self) -> int:
        return self.inserted + self.updated + self.deleted

    @property
    def rows(self) -> int:
        """Rows of the slice that the source gave and that are in the table now."""
        return self.inserted + self.updated + self.unchanged


@dataclass(frozen=True)
class Failure:
    """One entry of the ledger: a unit, or with `unit` None a partition, that could not be written."""

    asset: str
    partition: str | None
    unit: str | None
    error_class: str
    sqlstate: str | None
    message: str


@dataclass
class Outcome:
    """What a run of the engine did. `counts` by asset and partition; partitions in the order they finished.

    `batches` were committed; `attempts` counts the transactions that were tried for them. `said` is what a set's
    `around` gave of its partitions. `stood` counts tables that are right in a partition which failed with a later one.
    """

    done: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)
    unit_failures: list[Failure] = field(default_factory=list)
    counts: dict[str, dict[str, Counts]] = field(default_factory=dict)
    said: dict[str, dict[str, Any]] = field(default_factory=dict)
    stood: dict[str, dict[str, Counts]] = field(default_factory=dict)
    batches: int = 0
    attempts: int = 0
    seconds: float = 0.0

    def is_right(self, asset: str, partition: str) -> bool:
        """Whether the table's rows of a finished partition are what they should be."""
        return partition not in self.failed or partition in self.stood.get(asset, {})

    def stands(self, asset: str, partition: str) -> Counts | None:
        """The counts of a partition that is right; None where an earlier try of the run has written it."""
        return (self.stood if partition in self.failed else self.counts).get(asset, {}).get(partition)

    def of(self, asset: str, partition: str) -> Counts:
        return self.counts.setdefault(asset, {}).setdefault(partition, Counts())

    def total(self, asset: str) -> Counts:
        return Counts.sum(self.counts.get(asset, {}).values())
