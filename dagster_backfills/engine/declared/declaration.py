"""What a declaration says: the attributes of a `defs.yaml`, with their rules. Not here: what is built of them.

The text below each attribute is its help: in `dg list components`, in editors, in the reference.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dagster_backfills.engine.model import Mode, Target
from dagster_backfills.postgres.table_names import asset_path, split_table

CALENDARS = ("hourly", "daily", "weekly", "monthly")


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Partitions(_Words):
    """How the tables are partitioned. One of: a statement's rows, a calendar with its first date, or fixed keys."""

    keys: str | None = None
    """The statement that gives every key, the oldest first, followed by the name that people know it by, if there is
    one: partitions are rows."""
    dynamic: str | None = None
    """With `keys`: Dagster's name for the set; by default the backfill's name."""
    hourly: str | None = None
    """The first hour, as 2026-01-31-00:00."""
    daily: str | None = None
    """The first day, as 2026-01-31."""
    weekly: str | None = None
    """A day in the first week."""
    monthly: str | None = None
    """A day in the first month."""
    timezone: str = "UTC"
    """Of a calendar: where its days begin."""
    static: list[str] | None = None
    """The keys themselves."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Partitions":
        kinds = ("keys", "static", *CALENDARS)
        chosen = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(chosen) != 1:
            raise ValueError(f"give one of {', '.join(kinds)}; not {' and '.join(chosen) or 'none'}")
        if self.dynamic is not None and self.keys is None:
            raise ValueError("`dynamic` needs `keys`, the statement that gives them")
        if self.static == []:
            raise ValueError("`static` has no key")
        return self

    @property
    def calendar(self) -> str | None:
        """Which calendar it is, if it is one."""
        return next((kind for kind in CALENDARS if getattr(self, kind) is not None), None)


class TableDeclaration(_Words):
    """One table that the backfill fills."""

    table: str
    """The table: schema.table, or schema."Table" where its name needs quotes."""
    query: str | None = None
    """The statement that gives its rows; by default the one of the table's name."""
    compute: str | None = None
    """In place of `query`: package.module:function, which makes the rows' frame of `reads`' frame."""
    reads: str | None = None
    """With `compute`: the statement that gives its frame."""
    unit: str | None = None
    """A column that holds a part of the partition, such as a member's id: a part that fails does not fail the others,
    and large partitions are split."""
    units: str | None = None
    """With `unit`: the statement that lists `partition` and `unit` of all that is due; by default the query's name with
    `_units`."""
    mode: Mode = "upsert"
    """upsert: rewrite what differs, delete what is gone; insert_missing: add, touch nothing else; replace: write each
    partition anew."""
    key: list[str] | None = None
    """What makes a row unique; by default the primary key."""
    partition_column: str | None = None
    """The column that holds the partition. Left out where the table has none: then the query gives `partition` beside
    each row, and nothing is ever deleted."""
    touched: str = "updated_at"
    """A column that each write of a row sets to now."""
    journal: bool = True
    """Keep the previous version of each row that is changed, so that a run can be undone."""
    only_missing: bool = False
    """With insert_missing: the query itself leaves out rows that exist already."""
    asset_key: str | None = None
    """The asset's key, schema/table, where it is not the table's: for columns of a table that is a source elsewhere."""
    description: str | None = None
    """For the catalog."""
    owners: list[str] = []
    """team:… or e-mail addresses, for the catalog."""
    tags: dict[str, str] = {}
    """For the catalog."""

    @field_validator("table")
    @classmethod
    def _names_a_table(cls, value: str) -> str:
        split_table(value)
        return value

    @model_validator(mode="after")
    def _whole(self) -> "TableDeclaration":
        if self.query is not None and self.compute is not None:
            raise ValueError("give `query`, or `compute` with `reads`")
        if (self.compute is None) != (self.reads is None):
            raise ValueError("`compute` and `reads` go together")
        if self.units is not None and self.unit is None:
            raise ValueError("`units` lists the values of `unit`, a column; give both")
        return self

    @property
    def qualified(self) -> str:
        """schema.table, without quotes."""
        return ".".join(split_table(self.table))

    @property
    def statement(self) -> str:
        """The statement that gives the rows, or what `compute` makes them of."""
        return self.query or self.reads or split_table(self.table)[1]

    @property
    def units_statement(self) -> str | None:
        """The statement that lists the units."""
        return self.units or (f"{self.statement}_units" if self.unit is not None else None)

    @property
    def asset(self) -> str:
        """The asset's key as a path."""
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


class Check(_Words):
    """A rule that must hold: its statement gives the rows that break it."""

    query: str
    """The statement."""
    table: str | None = None
    """The table that it is shown at; by default the first."""
    warn: bool = False
    """Warn only."""
    description: str | None = None
    """The rule in a sentence."""


class Resources(_Words):
    """The project's own resources; the backfill then brings none."""

    database: str
    """The key of a PostgresResource."""
    io_manager: str
    """The key of a PostgresIOManager."""


class Schedule(_Words):
    """When the backfill runs by itself."""

    cron: str
    """In cron's notation."""
    timezone: str = "UTC"
    """Of the cron expression."""
    name: str | None = None
    """By default the backfill's name with `_schedule`."""


class Declaration(_Words):
    """The whole declaration."""

    tables: list[TableDeclaration]
    """The tables, in the order in which each batch writes them."""
    name: str = ""
    """By default the folder's."""
    group: str = ""
    """Of the assets; by default the folder's name."""
    partitions: Partitions | None = None
    """How the tables are partitioned; without it, each is one whole."""
    sources: list[str] = []
    """The tables that are read, besides those of `stale_when`: upstream in the lineage."""
    stale_when: dict[str, str] = {}
    """By source table: its column that holds the partition's key, or the statement that gives the keys of
    `changed_rows`."""
    stale_by: Literal["triggers", "look"] = "triggers"
    """How changes are noticed. triggers: as they are made, once `backfills triggers` has been applied; look: by the
    refresh sensor, which reads the sources for rows written since its last look."""
    due: str | None = None
    """The statement that gives keys which have to be written although no trigger has marked them."""
    missing: str | None = None
    """The statement that gives keys which lack rows, for a run over what is missing; by default that of `due`, else
    what Dagster has no materialization of."""
    status: str | None = None
    """The statement that says more of each partition, for `backfills status`: `partition`, and whatever is worth
    seeing."""
    report: str | None = None
    """package.module:function of a connection and a run's id that gives metadata of what the run did: an observation of
    the last table."""
    checks: dict[str, str | Check] = {}
    """By name: the statement, or more of it."""
    schedule: str | Schedule | None = None
    """A cron expression (UTC), or more of it."""
    batch_seconds: float = Field(default=0.0, ge=0)
    """How long a batch should take, where a longer one pays off."""
    fresh_within: int = Field(default=600, gt=0)
    """Seconds after which what is stale fails a check."""
    fresh_hours: float | None = Field(default=None, gt=0)
    """Hours after which tables that nothing has written count as overdue in the catalog."""
    views: list[str] = []
    """Views of the tables that are read elsewhere: downstream in the lineage."""
    owners: list[str] = []
    """team:… or e-mail addresses, of tables that name none of their own."""
    tags: dict[str, str] = {}
    """For the catalog, of every table."""
    database: str | None = None
    """The environment variable with the database's URL, where it is not DATABASE_URL."""
    resources: Resources | None = None
    """The project's own resources, in place of ours."""

    @field_validator("sources", "stale_when")
    @classmethod
    def _name_tables(cls, value: Any) -> Any:
        for name in value:
            split_table(name)
        return value

    @property
    def check_list(self) -> Mapping[str, Check]:
        """The checks by name, each with all that is said of it."""
        return {
            name: Check(query=check) if isinstance(check, str) else check
            for name, check in self.checks.items()
        }
