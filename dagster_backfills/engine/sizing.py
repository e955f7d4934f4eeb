"""Batch sizes that adapt to the duration of earlier batches. Pure functions: no clock, no database."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dagster_backfills.engine.settings import EngineSettings


@dataclass
class BatchSize:
    """The number of units in the next batch. It grows slowly toward the target duration and shrinks immediately."""

    settings: EngineSettings
    units: int = 0

    def __post_init__(self) -> None:
        self.units = self._bounded(self.settings.batch_units)

    def took(self, units: int, seconds: float) -> None:
        """Adapts the size to the duration of a committed batch. A much smaller batch does not make it grow."""
        target = self.settings.target_seconds
        if not target:
            return
        if seconds > 2 * target:
            self.units = self._bounded(int(self.units * target / seconds))
        elif seconds < target / 2 and units >= self.units // 2:
            self.units = self._bounded(self.units * 3 // 2 + 1)

    def shrink(self) -> None:
        """Halves the size, because the database is overloaded or a batch had a conflict."""
        self.units = self._bounded(self.units // 2)

    def _bounded(self, units: int) -> int:
        return max(self.settings.min_batch_units, min(units, self.settings.max_batch_units), 1)


def batches(
    keys: Sequence[str],
    weights: Mapping[str, int],
    size: BatchSize,
    fit: Callable[[str, str], bool] = lambda earlier, later: True,
) -> Iterator[list[str]]:
    """Splits `keys`, in order, into batches of about `size` units. Reads the size again for each batch.

    weights: units by partition. A partition without a weight counts as one unit. A partition that is larger than the
    size becomes a batch of its own. fit: whether two adjacent keys can be in one batch.
    """
    batch: list[str] = []
    units = 0
    for key in keys:
        weight = max(weights.get(key, 0), 1)
        if batch and (units + weight > size.units or not fit(batch[-1], key)):
            yield batch
            batch, units = [], 0
        batch.append(key)
        units += weight
    if batch:
        yield batch
