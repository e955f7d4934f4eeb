"""What a declaration says: the attributes of a `defs.yaml`, with their rules. Not here: what is built of them."""

import dagster as dg
from pydantic import Field, field_validator, model_validator

from dagster_backfills.engine.model import Mode, Target
from dagster_backfills.postgres.table_names import split_table

_TIME = {
    "hourly": dg.HourlyPartitionsDefinition,
    "daily": dg.DailyPartitionsDefinition,
    "weekly": dg.WeeklyPartitionsDefinition,
    "monthly": dg.MonthlyPartitionsDefinition,
}


class Partitions(dg.Model):
    """How the tables are cut. One of: the rows of a statement, a calendar with its first date, or keys that stay."""

    keys: str | None = Field(
        default=None,
        description="The statement that gives every key, the oldest first, and behind it the name that people know it "
        "by, if there is one: partitions are rows.",
    )
    dynamic: str | None = Field(
        default=None,
        description="With `keys`: what Dagster calls the set; by default as the backfill.",
    )
    hourly: str | None = Field(default=None, description="The first hour, as 2026-01-31-00:00.")
    daily: str | None = Field(default=None, description="The first day, as 2026-01-31.")
    weekly: str | None = Field(default=None, description="A day in the first week.")
    monthly: str | None = Field(default=None, description="A day in the first month.")
    timezone: str = Field(default="UTC", description="Of a calendar: where its days begin.")
    static: list[str] | None = Field(default=None, description="The keys themselves.")

    @model_validator(mode="after")
    def _one_kind(self) -> "Partitions":
        kinds = ("keys", "static", *_TIME)
        chosen = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(chosen) != 1:
            raise ValueError(f"give one of {', '.join(kinds)}; not {' and '.join(chosen) or 'none'}")
        if self.dynamic is not None and self.keys is None:
            raise ValueError("`dynamic` needs `keys`, the statement that gives them")
        if self.static == []:
            raise ValueError("`static` has no key")
        try:
            self.definition("any")
        except Exception as error:  # dates, zones and keys: by Dagster's rules
            raise ValueError(" ".join(str(error).split())) from error
        return self

    def definition(self, name: str) -> dg.PartitionsDefinition:
        """As Dagster has it. `name`: what a set of rows is called that has no name of its own."""
        if self.keys is not None:
            return dg.DynamicPartitionsDefinition(name=self.dynamic or name)
        if self.static is not None:
            return dg.StaticPartitionsDefinition(self.static)
        assert self.calendar is not None
        return _TIME[self.calendar](start_date=getattr(self, self.calendar), timezone=self.timezone)

    @property
    def calendar(self) -> str | None:
        """Which calendar it is, if it is one."""
        return next((kind for kind in _TIME if getattr(self, kind) is not None), None)


class TableDeclaration(dg.Model):
    """One table that the backfill fills."""

    table: str = Field(description='The table: schema.table, or schema."Table" where its name needs quotes.')
    query: str | None = Field(
        default=None, description="The statement that gives its rows; by default the one of the table's name."
    )
    compute: str | None = Field(
        default=None,
        description="In place of `query`: package.module:function, which makes the rows' frame of `reads`' frame.",
    )
    reads: str | None = Field(default=None, description="With `compute`: the statement that gives its frame.")
    unit: str | None = Field(
        default=None,
        description="A column that holds a part of the partition, a member's id say: a part that fails costs itself "
        "alone, and large partitions are cut.",
    )
    units: str | None = Field(
        default=None,
        description="With `unit`: the statement that lists `partition` and `unit` of all that is due; by default the "
        "query's name with `_units`.",
    )
    mode: Mode = Field(
        default="upsert",
        description="upsert: rewrite what differs, delete what is gone; insert_missing: add, touch nothing else; "
        "replace: write each partition anew.",
    )
    key: list[str] | None = Field(
        default=None, description="What makes a row unique; by default the primary key."
    )
    partition_column: str | None = Field(
        default=None,
        description="The column that holds the partition. Left out where the table has none: then the query gives "
        "`partition` beside each row, and nothing is ever deleted.",
    )
    touched: str = Field(default="updated_at", description="A column that each write of a row sets to now.")
    journal: bool = Field(
        default=True,
        description="Keep what stood before of each row that is changed, so that a run can be undone.",
    )
    only_missing: bool = Field(
        default=False, description="With insert_missing: the query itself leaves out what is there."
    )
    asset_key: str | None = Field(
        default=None,
        description="The asset's key, schema/table, where it is not the table's: for columns of a table that is a "
        "source elsewhere.",
    )
    description: str | None = Field(default=None, description="For the catalog.")
    owners: list[str] = Field(default=[], description="team:… or e-mail addresses, for the catalog.")
    tags: dict[str, str] = Field(default={}, description="For the catalog.")

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
    def statement(self) -> str:
        """The statement that gives the rows, or what `compute` makes them of."""
        return self.query or self.reads or split_table(self.table)[1]

    @property
    def units_statement(self) -> str | None:
        """The statement that lists the units."""
        return self.units or (f"{self.statement}_units" if self.unit is not None else None)

    @property
    def key_path(self) -> list[str]:
        """The asset's key."""
        return self.asset_key.split("/") if self.asset_key else list(split_table(self.table))

    @property
    def asset(self) -> str:
        return "/".join(self.key_path)

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


class Check(dg.Model):
    """A rule that must hold: its statement gives the rows that break it."""

    query: str = Field(description="The statement.")
    table: str | None = Field(
        default=None, description="The table that it is shown at; by default the first."
    )
    warn: bool = Field(default=False, description="Warn only.")
    description: str | None = Field(default=None, description="The rule in a sentence.")


class Resources(dg.Model):
    """Resources that the project has; the backfill brings none of its own then."""

    database: str = Field(description="The key of a PostgresResource.")
    io_manager: str = Field(description="The key of a PostgresIOManager.")


class Schedule(dg.Model):
    """When the backfill runs by itself."""

    cron: str = Field(description="In cron's notation.")
    timezone: str = Field(default="UTC", description="Of the cron expression.")
    name: str | None = Field(default=None, description="By default the backfill's name with `_schedule`.")
