"""What is written where: the nouns of the engine. No SQL and no connection here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import psycopg

from dagster_backfills.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from dagster_backfills.engine.ledger import RunIdentity
    from dagster_backfills.engine.settings import EngineSettings
    from dagster_backfills.engine.table.address import Address

Mode = Literal["upsert", "insert_missing", "replace"]
WHOLE = ""  # the one "partition" of an asset that has none
PARTITION = "partition"  # the column in which a source gives the partition, where its table has none for it


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
        """The same as asset metadata, from which `from_metadata` reads it."""
        entries: dict[str, Any] = {"write_mode": self.mode}
        if self.partition_by is not None:
            by = self.partition_by
            entries["partition_expr"] = by if isinstance(by, str) else dict(by)
        for name, value in (("unit_column", self.unit), ("table", self.table)):
            if value is not None:
                entries[name] = value
        if self.key is not None:
            entries["key_columns"] = list(self.key)
        if self.partition_in_query:
            entries["partition_in_query"] = True
        if self.touched != "updated_at":
            entries["touched_column"] = self.touched
        if not self.journal:
            entries["journal"] = False
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
        return cls(
            asset=asset,
            partition_by=metadata.get("partition_expr"),
            unit=metadata.get("unit_column"),
            mode=metadata.get("write_mode", "upsert"),
            key=metadata.get("key_columns"),
            table=metadata.get("table"),
            partition_in_query=metadata.get("partition_in_query", False),
            touched=metadata.get("touched_column", "updated_at"),
            journal=metadata.get("journal", True),
        )


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
    def sum(cls, counts: "Iterable[Counts]", failed_units: int = 0) -> "Counts":
        """All of these together."""
        total = cls(failed_units=failed_units)
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
