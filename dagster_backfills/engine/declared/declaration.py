"""The attributes of a `defs.yaml` and their rules. Not here: the definitions built from them (`components/`).

The text below each attribute is its help in `dg list components`, in editors and in the reference.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dagster_backfills.engine.model import Mode, Target
from dagster_backfills.postgres.table_names import asset_path, split_table

CALENDARS = ("hourly", "daily", "weekly", "monthly")


class _Attributes(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Partitions(_Attributes):
    """How the tables are partitioned: by the rows of a statement, by a calendar, or by fixed keys."""

    keys: str | None = None
    """The statement that returns every partition key, oldest first, and optionally a display name as its second
    column."""
    dynamic: str | None = None
    """With `keys`: the name of Dagster's dynamic partitions definition; by default the backfill's name."""
    hourly: str | None = None
    """Hourly partitions; the first hour, such as 2026-01-31-00:00."""
    daily: str | None = None
    """Daily partitions; the first day, such as 2026-01-31."""
    weekly: str | None = None
    """Weekly partitions, from Sunday to Saturday; a day in the first week, such as 2026-01-31."""
    monthly: str | None = None
    """Monthly partitions; a day in the first month, such as 2026-01-31."""
    timezone: str = "UTC"
    """The time zone of calendar partitions."""
    static: list[str] | None = None
    """Fixed partition keys."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Partitions":
        kinds = ("keys", "static", *CALENDARS)
        chosen = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(chosen) != 1:
            raise ValueError(f"give one of {', '.join(kinds)}; not {' and '.join(chosen) or 'none'}")
        if self.dynamic is not None and self.keys is None:
            raise ValueError("`dynamic` needs `keys`, the statement that returns them")
        if self.static == []:
            raise ValueError("`static` has no key")
        return self

    @property
    def calendar(self) -> str | None:
        """The calendar, for calendar partitions: `hourly`, `daily`, `weekly` or `monthly`."""
        return next((kind for kind in CALENDARS if getattr(self, kind) is not None), None)


class TableDeclaration(_Attributes):
    """One table that the backfill fills."""

    table: str
    """The table: schema.table, or schema."Table" if the name needs quotes."""
    query: str | None = None
    """The statement that returns the rows; by default the statement with the table's name."""
    compute: str | None = None
    """Instead of `query`: package.module:function. It gets the data frame of `reads` and returns the rows as one."""
    reads: str | None = None
    """With `compute`: the statement whose rows the function gets."""
    unit: str | None = None
    """A column that divides a partition into units, such as a member's ID. A unit that fails does not fail the others,
    and large partitions are split into batches of units."""
    units: str | None = None
    """With `unit`: the statement that returns `partition` and `unit` of all rows that are due; by default named like
    the query with `_units` appended."""
    mode: Mode = "upsert"
    """upsert: insert new rows, update rows that differ, delete rows that the query no longer returns; insert_missing:
    only insert missing rows; replace: delete a partition's rows and insert all again."""
    key: list[str] | None = None
    """The columns that identify a row; by default the primary key."""
    partition_column: str | None = None
    """The column that stores the partition. Omit it if the table has none: the query must then return `partition` with
    each row, and rows are never deleted."""
    touched: str = "updated_at"
    """A column that each write of a row sets to now."""
    journal: bool = True
    """Keep the previous version of each changed row, so that a run can be undone."""
    only_missing: bool = False
    """With insert_missing: the query itself leaves out existing rows."""
    asset_key: str | None = None
    """The asset key, schema/table, if it differs from the table's name: for columns of a table that is a source of
    other assets."""
    description: str | None = None
    """The asset's description."""
    owners: list[str] = []
    """The asset's owners: team:… or email addresses."""
    tags: dict[str, str] = {}
    """The asset's tags."""

    @field_validator("table")
    @classmethod
    def _names_a_table(cls, value: str) -> str:
        split_table(value)
        return value

    @model_validator(mode="after")
    def _whole(self) -> "TableDeclaration":
        if self.query is not None and self.compute is not None:
            raise ValueError("give `query`, or `compute` with `reads`, not both")
        if (self.compute is None) != (self.reads is None):
            raise ValueError("`compute` and `reads` go together")
        if self.units is not None and self.unit is None:
            raise ValueError("`units` needs `unit`, the column whose values it lists")
        return self

    @property
    def qualified(self) -> str:
        """The table as schema.table, without quotes."""
        return ".".join(split_table(self.table))

    @property
    def statement(self) -> str:
        """The name of the statement that returns the rows, or the input of `compute`."""
        return self.query or self.reads or split_table(self.table)[1]

    @property
    def units_statement(self) -> str | None:
        """The name of the statement that lists the units."""
        return self.units or (f"{self.statement}_units" if self.unit is not None else None)

    @property
    def asset(self) -> str:
        """The asset key as a path."""
        return self.asset_key or "/".join(asset_path(self.table))

    def target(self, *, partitioned: bool) -> Target:
        return Target(
            self.asset,
            partition_by=self.partition_column,
            unit=self.unit,
            mode=self.mode,
            key=self.key,
            table=split_table(self.table),
            partition_in_query=partitioned and self.partition_column is None,
            touched=self.touched,
            journal=self.journal,
        )


class Check(_Attributes):
    """An asset check: its statement returns the rows that violate the rule."""

    query: str
    """The statement."""
    table: str | None = None
    """The table whose asset shows the check; by default the first."""
    warn: bool = False
    """Report violations as a warning, not an error."""
    description: str | None = None
    """The check's description."""


class Resources(_Attributes):
    """The project's own resources; the backfill then defines none."""

    database: str
    """The key of a PostgresResource."""
    io_manager: str
    """The key of a PostgresIOManager."""


class Schedule(_Attributes):
    """The backfill's schedule."""

    cron: str
    """The cron expression."""
    timezone: str = "UTC"
    """The time zone of the cron expression."""
    name: str | None = None
    """The schedule's name; by default the backfill's name with `_schedule` appended."""


class Declaration(_Attributes):
    """The attributes of a backfill."""

    tables: list[TableDeclaration]
    """The tables, in the order in which each batch writes them."""
    name: str = ""
    """The backfill's name; by default the folder's name."""
    group: str = ""
    """The asset group; by default the folder's name."""
    partitions: Partitions | None = None
    """How the tables are partitioned; by default they are not."""
    sources: list[str] = []
    """Further tables that the statements read, besides those of `stale_when`: upstream in the lineage."""
    stale_when: dict[str, str] = {}
    """Source tables whose changes make partitions stale. By table: the column that stores the partition key, or the
    statement that returns the keys of `changed_rows`."""
    stale_by: Literal["triggers", "polling"] = "triggers"
    """How changes of source tables are detected. triggers: immediately, once `backfills triggers` has been applied;
    polling: by the refresh sensor, which reads the rows written since its last tick and can't see deletions."""
    due: str | None = None
    """The statement that returns keys of partitions that must be written although they are not marked stale."""
    missing: str | None = None
    """The statement that returns keys of partitions that lack rows; by default that of `due`, else the partitions
    without a materialization in Dagster."""
    status: str | None = None
    """The statement that returns `partition` and further columns to show in `backfills status`."""
    report: str | None = None
    """package.module:function. It gets a connection and a run ID and returns metadata, which becomes an observation of
    the last table's asset."""
    checks: dict[str, str | Check] = {}
    """Asset checks by name: the statement that returns violations, or its attributes."""
    schedule: str | Schedule | None = None
    """A cron expression (UTC), or a schedule's attributes."""
    batch_seconds: float = Field(default=0.0, ge=0)
    """Target duration of a batch in seconds, if longer batches are faster overall."""
    fresh_within: int = Field(default=600, gt=0)
    """Seconds after which a stale partition fails a check."""
    fresh_hours: float | None = Field(default=None, gt=0)
    """Hours after the last materialization when the catalog shows the assets as overdue."""
    views: list[str] = []
    """Views of the tables: downstream in the lineage."""
    owners: list[str] = []
    """team:… or email addresses: the owners of tables that declare none."""
    tags: dict[str, str] = {}
    """Tags of every asset."""
    database: str | None = None
    """The environment variable that holds the database URL; by default DATABASE_URL."""
    resources: Resources | None = None
    """The project's own resources to use instead of the backfill's."""

    @field_validator("sources", "stale_when")
    @classmethod
    def _name_tables(cls, value: Any) -> Any:
        for name in value:
            split_table(name)
        return value

    @property
    def check_list(self) -> Mapping[str, Check]:
        """The checks by name, in their long form."""
        return {
            name: Check(query=check) if isinstance(check, str) else check
            for name, check in self.checks.items()
        }
