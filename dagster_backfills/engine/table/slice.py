"""The part of a table that one statement of a batch writes, and the statement's parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster_backfills.engine.table.address import Address
from dagster_backfills.engine.table.arrays import text_array


@dataclass(frozen=True)
class Slice:
    """Whole partitions, or some units of one partition.

    units: None for whole partitions. empty: the table had no rows of the slice when it was last checked. computed: the
    rows, if they were prefetched. journal_id: the ID for the journal entries, if the write journals.
    """

    keys: Sequence[str]
    units: Sequence[str] | None = None
    run_id: str = ""
    empty: bool = False
    computed: Any = None
    journal_id: int | None = None

    def binds(self, address: Address, by_label: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Returns the parameters for the source and the slice. by_label: partition keys by label (`keys_by_label`)."""
        other = {label: key for label, key in (by_label or {}).items() if label != key}
        return {
            "unit_keys": text_array(self.units),
            "run_id": self.run_id,
            "journal_id": self.journal_id,
            # Only labels that differ from their key.
            "journal_labels": list(other),
            "journal_keys": list(other.values()),
            **address.binds(self.keys),
        }
