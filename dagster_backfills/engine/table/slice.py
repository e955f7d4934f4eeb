"""What one statement of a batch writes of a table, and the binds that it is told by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster_backfills.engine.table.address import Address
from dagster_backfills.engine.table.arrays import text_array


@dataclass(frozen=True)
class Slice:
    """Whole partitions, or some units of one.

    units: None for all of them. empty: the table had none of the rows when last looked at. computed: the rows, where
    they are there already. journal_id: the number of the entries in the journal, where the write journals.
    """

    keys: Sequence[str]
    units: Sequence[str] | None = None
    run_id: str = ""
    empty: bool = False
    computed: Any = None
    journal_id: int | None = None

    def binds(self, address: Address, by_label: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The binds of the source and of the slice. `by_label`: the keys by what the table calls its partitions."""
        other = {label: key for label, key in (by_label or {}).items() if label != key}
        return {
            "unit_keys": text_array(self.units),
            "run_id": self.run_id,
            "journal_id": self.journal_id,
            # Nothing where the two are the same.
            "journal_labels": list(other),
            "journal_keys": list(other.values()),
            **address.binds(self.keys),
        }
