"""Batches of partitions, sized by what the last ones took. Pure: no clock and no database."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dagster_backfills.engine.settings import EngineSettings


@dataclass
class BatchSize:
    """Units in the next batch: grows slowly towards the target duration, shrinks at once."""

    settings: EngineSettings
    units: int = 0

    def __post_init__(self) -> None:
        self.units = self._bounded(self.settings.batch_units)

    def took(self, units: int, seconds: float) -> None:
        """Learn from a batch that committed. One far below the size says little about it, and grows nothing."""
        target = self.settings.target_seconds
        if not target:
            return
        if seconds > 2 * target:
            self.units = self._bounded(int(self.units * target / seconds))
        elif seconds < target / 2 and units >= self.units // 2:
            self.units = self._bounded(self.units * 3 // 2 + 1)

    def shrink(self) -> None:
        """Halve, because the database is overloaded or a batch was in somebody's way."""
        self.units = self._bounded(self.units // 2)

    def _bounded(self, units: int) -> int:
        return max(self.settings.min_batch_units, min(units, self.settings.max_batch_units), 1)


def batches(keys: Sequence[str], weights: Mapping[str, int], size: BatchSize) -> Iterator[list[str]]:
    """Cut `keys`, in their order, into batches of about `size` units, reading the size anew for each batch.

    A partition without a weight counts as one unit. One that is heavier than the size is a batch by itself.
    """
    batch: list[str] = []
    held = 0
    for key in keys:
        weight = max(weights.get(key, 0), 1)
        if batch and held + weight > size.units:
            yield batch
            batch, held = [], 0
        batch.append(key)
        held += weight
    if batch:
        yield batch
