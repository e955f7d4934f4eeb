"""The engine's input: sources of rows, target tables, and sets of writes. Not here: results (`outcome`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import psycopg

from dagster_backfills.engine.outcome import Outcome
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.table.address import Address
from dagster_backfills.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Mode = Literal["upsert", "insert_missing", "replace"]
WHOLE = ""  # the key of an unpartitioned asset's only partition
PARTITION = "partition"  # the source's column for the partition key, if the table does not store it
# By metadata key of an asset: the `Target` field that it sets.
_METADATA = {
    "partition_expr": "partition_by",
    "unit_column": "unit",
    "write_mode": "mode",
    "key_columns": "key",
    "table": "table",
    "partition_in_query": "partition_in_query",
    "touched_column": "touched",
    "journal": "journal",
}


@dataclass(frozen=True)
class Query:
    """Rows that a SELECT returns. They are computed and written inside the database.

    sql: the statement, with psycopg's named parameters (`%(name)s`). The engine binds `partition_keys` (`text[]`),
        `unit_keys` (`text[]`, or null for all units of these partitions), `run_id` (the Dagster run) and, for a
        time-partitioned table, `window_start` and `window_end` (`timestamptz`).
    params: values for all other parameters.
    only_missing: the statement itself leaves out nearly all rows that exist. `insert_missing` then does not look up
        each row first. A row that exists is left unchanged in any case.
    """

    sql: str
    params: Mapping[str, Any] = field(default_factory=dict)
    only_missing: bool = False

    @property
    def window(self) -> bool:
        """Whether it selects by time, from the start of the batch's first partition to the end of its last."""
        return "%(window_start)s" in self.sql or "%(window_end)s" in self.sql


@dataclass(frozen=True)
class Compute:
    """Rows that a Python function computes, once per batch.

    function: takes the batch's connection, the partition keys and the unit keys (None for all units); returns a pandas
        DataFrame or an Arrow table.
    prefetch: the number of slices of a large partition to compute ahead, each on its own connection and thread. Use it
        only if no other writer can change the partition meanwhile: its changes would be overwritten with older values.
    window: whether it selects by time, as `Query.window`.
    """

    function: Callable[[psycopg.Connection, Sequence[str], Sequence[str] | None], "pd.DataFrame | pa.Table"]
    prefetch: int = 0
    window: bool = False


@dataclass(frozen=True)
class Frame:
    """Rows that are already in memory, as a pandas DataFrame or an Arrow table. Loaded with COPY."""

    data: "pd.DataFrame | pa.Table"


Source = Query | Compute | Frame


@dataclass(frozen=True)
class Target:
    """The table that an asset is stored in, and how it is written.

    asset: the asset key as a path, `schema/table`.
    partition_by: the column that stores the partition key; for a multi-partitioned asset, a mapping of dimension to
        column; None for an unpartitioned asset.
    unit: the column that stores the unit within a partition (a member, a user). Units fail individually, without
        failing their partition.
    mode: `upsert` updates rows that differ, inserts new ones and deletes those that the source no longer returns;
        `insert_missing` only inserts missing rows; `replace` deletes the partition's rows and inserts all again.
    key: the columns that identify a row; by default the primary key or another unique constraint whose columns the
        source returns.
    table: `schema.table`, or a pair of both names; by default derived from the asset key.
    partition_in_query: the table does not store the partition; the query returns it with each row, as `partition`.
        Rows are then inserted and updated but never deleted.
    touched: the column, if the table has it, that each write of a row sets to now. It is ignored in comparisons.
    journal: keep the previous version of each changed row, so that a run can be undone. Needs a key without nulls.
    """

    asset: str
    partition_by: str | Mapping[str, str] | None = None
    unit: str | None = None
    mode: Mode = "upsert"
    key: Sequence[str] | None = None
    table: str | Sequence[str] | None = None
    partition_in_query: bool = False
    touched: str = "updated_at"
    journal: bool = True

    @property
    def schema_and_table(self) -> tuple[str, str]:
        if self.table is not None:
            schema, table = self.table.split(".", 1) if isinstance(self.table, str) else self.table
            return schema, table
        schema, _, table = self.asset.rpartition("/")
        return schema.rpartition("/")[2] or "public", table

    def metadata(self) -> dict[str, Any]:
        """Returns the mode and all non-default fields as asset metadata. `from_metadata` is the inverse."""
        entries: dict[str, Any] = {"write_mode": self.mode}
        for name, field_name in _METADATA.items():
            value = getattr(self, field_name)
            if value != getattr(type(self), field_name):
                as_json = dict if isinstance(value, Mapping) else list
                entries[name] = value if isinstance(value, str | bool) else as_json(value)
        return entries

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise UserError(
                f"Asset {self.asset}: unknown write mode {self.mode!r}.",
                hint=f"Choose one of {', '.join(get_args(Mode))}.",
            )
        if self.partition_in_query and (self.mode == "replace" or self.partition_by is not None):
            raise UserError(
                f"Asset {self.asset}: `partition_in_query` can't be combined with "
                + ("mode 'replace'." if self.mode == "replace" else "`partition_by`."),
                hint="Use mode 'upsert' or 'insert_missing', or name the column that stores the partition.",
            )

    @classmethod
    def from_metadata(cls, asset: str, metadata: Mapping[str, Any]) -> "Target":
        given = {field_name: metadata[name] for name, field_name in _METADATA.items() if name in metadata}
        return cls(asset, **given)


@dataclass(frozen=True)
class Write:
    """One table to write, and the source of its rows.

    units: returns `partition` and `unit` of all rows that are due.
    owned: returns the units (`unit`) that this write is responsible for, if not all of the partition. It resolves
        failures of these units only.
    address: how the table is partitioned. The I/O manager derives it from the asset's partitions if it is None. One of
        your own can restrict the write to some of a partition's rows.
    """

    target: Target
    source: Source
    units: Query | None = None
    owned: Query | None = None
    address: Address | None = None


@dataclass(frozen=True)
class WriteSet:
    """Writes that belong together. Each batch writes all of them in one transaction, in this order.

    A partition that is written unit by unit writes the tables with units first, and the other tables at its end.

    keys: the partitions to write, if the run itself was not launched for partitions.
    names: returns display names by partition key.
    partitions_def: with `keys`, Dagster's definition of these partitions, if it is needed to find their rows (time
        windows, for example).
    batch_seconds: target duration of a batch, if longer batches are cheaper and nobody waits for the rows. It can only
        raise the I/O manager's `target_seconds`.
    settings: engine settings to use instead of the I/O manager's.
    around: a wrapper that is called for each partition separately, for example to take locks or keep records. It gets
        the partition key, the run's identity and a function that writes the partition, and must call that function
        with the identity to use. It returns metadata to report with the partition's counts.
    """

    writes: Sequence[Write]
    keys: Sequence[str] | None = None
    names: "Callable[[psycopg.Connection], Mapping[str, str | None]]" = lambda conn: {}
    partitions_def: Any = None
    batch_seconds: float = 0.0
    settings: EngineSettings | None = None
    around: "Around | None" = None


Around = Callable[[str, RunIdentity, Callable[[RunIdentity], Outcome]], dict[str, Any]]
