"""What is written where: the nouns of the engine. Not here: what came of it (`outcome`); SQL, connections."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import psycopg

from dagster_backfills.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from dagster_backfills.engine.ledger import RunIdentity
    from dagster_backfills.engine.outcome import Outcome
    from dagster_backfills.engine.settings import EngineSettings
    from dagster_backfills.engine.table.address import Address

Mode = Literal["upsert", "insert_missing", "replace"]
WHOLE = ""  # the one "partition" of an asset that has none
PARTITION = "partition"  # the column in which a source gives the partition, where its table has none for it
# An asset's metadata, and the field of its target that each entry gives.
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
    """A SELECT that the database computes; no row of it crosses the wire.

    `sql` has psycopg's named binds (`%(name)s`). The engine binds `partition_keys` (`text[]`), `unit_keys`
    (`text[]`, or null for every unit of those partitions), for a time-partitioned table `window_start` and
    `window_end` (`timestamptz`), and the Dagster run's `run_id`. `params` binds the rest.

    only_missing: nearly all of its rows are not in the table, because it has looked itself. Then `insert_missing` does
        not look for each once more; one that is there stays as it is all the same.
    """

    sql: str
    params: Mapping[str, Any] = field(default_factory=dict)
    only_missing: bool = False


@dataclass(frozen=True)
class Compute:
    """Rows that Python rules compute from what they read: called once a batch, on the batch's connection.

    The function takes the connection, the partition keys and the unit keys (None: every unit), and returns a
    pandas DataFrame or an Arrow table.

    prefetch: so many of a large partition's next slices are computed while the last one is written, each on a
        connection and thread of its own. Only where the caller keeps other writers of the partition away until
        it is done: what they wrote meanwhile would be overwritten by what was computed before.
    """

    function: Callable[[psycopg.Connection, Sequence[str], Sequence[str] | None], "pd.DataFrame | pa.Table"]
    prefetch: int = 0


@dataclass(frozen=True)
class Frame:
    """Rows that are there: a pandas DataFrame or an Arrow table, brought in by COPY."""

    data: "pd.DataFrame | pa.Table"


Source = Query | Compute | Frame


@dataclass(frozen=True)
class Target:
    """A table and how an asset is laid out in it. The asset's key is its address.

    asset: the asset's key as a path, `schema/table`.
    partition_by: the column that holds the partition key; for several dimensions, a mapping of dimension to
        column; None for an asset without partitions.
    unit: the column that holds the unit within a partition (one member, one user), where single rows may fail
        without failing their partition.
    mode: `upsert` rewrites a row only where it differs and deletes the slice's rows that are gone;
        `insert_missing` adds what is missing and touches nothing else; `replace` writes the slice anew.
    key: the columns that make a row unique; by default the table's primary key, or the unique constraint that
        the source has all columns of.
    table: where it is not the asset's own address: `schema.table`, or the two apart where a name has a dot.
    partition_in_query: the table has no column for the partition; the query gives it beside each row, as `partition`.
        Counts and failures go by it. Rows are inserted and updated, and never deleted: no row says whose it is.
    touched: the column, if the table has it, that each write of a row sets to now, and that is no difference in itself.
    journal: what stood before is kept, so that a run can be undone; where the table has a key without nulls.
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
        """The same as asset metadata, from which `from_metadata` reads it: what is not as usual, and the mode."""
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
                f"Asset {self.asset}: there is no write mode {self.mode!r}.",
                hint=f"Choose one of {', '.join(get_args(Mode))}.",
            )
        if self.partition_in_query and (self.mode == "replace" or self.partition_by is not None):
            raise UserError(
                f"Asset {self.asset}: a table without the partition's column can't be written with "
                + ("mode 'replace'." if self.mode == "replace" else "`partition_by` at the same time."),
                hint="Write it with 'upsert' or 'insert_missing', or name the column that holds the partition.",
            )

    @classmethod
    def from_metadata(cls, asset: str, metadata: Mapping[str, Any]) -> "Target":
        given = {field_name: metadata[name] for name, field_name in _METADATA.items() if name in metadata}
        return cls(asset, **given)


@dataclass(frozen=True)
class Write:
    """One table's share of a batch.

    units: lists the partition and unit of every row due (`partition, unit`).
    owned: lists the units (`unit`) that the write is about, due or not, where these are not all of its partition: of
        what is in the ledger it resolves theirs alone.
    address: where its rows lie, where these are not all rows of a partition.
    """

    target: Target
    source: Source
    units: Query | None = None
    owned: Query | None = None
    address: "Address | None" = None


@dataclass(frozen=True)
class WriteSet:
    """Writes that belong together: each batch commits all of them in one transaction, in this order.

    A partition that is worked unit by unit writes the tables that have units first, and the others at its end.

    keys: the partitions to work, for a run that is given its partitions rather than launched for them.
    names: finds by partitions' keys the names that people know them by.
    partitions_def: with `keys`, Dagster's definition of those partitions, where it takes that to find their rows: a
        calendar's windows say.
    batch_seconds: what a batch should take, where the rows are such that nobody waits for them and longer batches are
        cheaper. It only lengthens the I/O manager's `target_seconds`.
    settings: how the engine works the set, where not as the I/O manager is configured.
    around: works each partition by itself, in order, and does what is to be done before and after: locks, a record.
        It is given the partition's key, the run's identity and the work, which it calls with the identity to work
        under; it returns what is to be reported of the partition beside the counts.
    """

    writes: Sequence[Write]
    keys: Sequence[str] | None = None
    names: "Callable[[psycopg.Connection], Mapping[str, str | None]]" = lambda conn: {}
    partitions_def: Any = None
    batch_seconds: float = 0.0
    settings: "EngineSettings | None" = None
    around: "Around | None" = None


Around = Callable[[str, "RunIdentity", Callable[["RunIdentity"], "Outcome"]], dict[str, Any]]
