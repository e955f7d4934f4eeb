"""Generates a draft of a declaration from its table: a `defs.yaml` and a `queries.sql`.

A draft can't run, because its statements read from a placeholder table `fill_in`. Nothing can be written or deleted
before somebody has completed them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.statements import load_statements
from dagster_backfills.postgres.table_names import quoted, split_table


class DraftParams(BaseModel):
    """The parameters of `backfills new` and `dg scaffold defs dagster_backfills.PostgresBackfill`."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    table: str
    """The table to fill: schema.table, or schema."Table"."""
    partition_column: str | None = None
    """The column that stores the partition, if any."""
    unit: str | None = None
    """The column that divides a partition into units, such as a member's ID."""


@dataclass(frozen=True)
class Draft:
    """A draft. columns, key: the table's columns with their types and its key, if the table was read."""

    name: str
    params: DraftParams
    columns: dict[str, str] = field(default_factory=dict)
    key: tuple[str, ...] = ()

    @classmethod
    def of_table(cls, name: str, params: DraftParams, table: Table) -> "Draft":
        """Makes a draft for an existing table. Raises UserError for an unknown column."""
        for column in (params.partition_column, params.unit):
            if column is not None:
                table.column(column)
        columns = {c.name: c.type for c in table.columns if not c.managed and c.name != "updated_at"}
        return cls(name, params, columns, table.keys[0] if table.keys else ())

    def write(self, folder: Path) -> list[str]:
        """Writes both files. Returns the statements to complete, each with its file and line.

        Raises UserError if a file exists.
        """
        texts = {folder / "defs.yaml": self._defs(), folder / "queries.sql": self._queries()}
        for file in texts:
            if file.exists():
                raise UserError(f"{file} already exists.", "Give the backfill another name.")
        folder.mkdir(parents=True, exist_ok=True)
        for file, lines in texts.items():
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        written = load_statements(folder / "queries.sql").by_name.values()
        return [f"{statement.place}: {statement.name}" for statement in written]

    def _defs(self) -> Iterator[str]:
        by, unit = self.params.partition_column, self.params.unit
        yield from ("type: dagster_backfills.PostgresBackfill", "attributes:")
        if by:
            yield f"  partitions: {{keys: {self.name}_keys}}"
        yield from ("  tables:", f"    - table: {_scalar(self.params.table)}")
        yield from (
            [f"      query: {self._query}"] if self._query != split_table(self.params.table)[1] else []
        )
        yield from ([f"      unit: {_scalar(unit)}"] if unit else [])
        yield from ([f"      partition_column: {_scalar(by)}"] if by else [])

    @property
    def _query(self) -> str:
        """The table's name as a valid statement name."""
        return re.sub(r"\W", "_", split_table(self.params.table)[1])

    def _queries(self) -> Iterator[str]:
        by, unit, rows = self.params.partition_column, self.params.unit, self._query
        inside = [f"{quoted(by)} = any(:partition_keys::{self._type(by)}[])"] if by else []
        if by:
            yield from (f"-- name: {self.name}_keys", "-- Every partition, oldest first.")
            yield from (f"select distinct {quoted(by)} from fill_in order by 1;", "")  # noqa: S608
        if unit:
            yield from (f"-- name: {rows}_units", "-- The units of each partition.")
            yield f"select {quoted(by) if by else chr(39) * 2} as partition, {quoted(unit)} as unit"
            yield from _from(inside)
            yield ""
            bind = f":unit_keys::{self._type(unit)}[]"
            inside = [*inside, f"({bind} is null or {quoted(unit)} = any({bind}))"]
        yield from (f"-- name: {rows}", "-- All rows that the table should have.")
        if self.key:
            yield f"-- The key of a row is {', '.join(self.key)}."
        elif self.columns:
            yield "-- The table has no key: give it a primary key, or use `mode: replace`."
        yield "select"
        names = list(self.columns) or [name for name in (by, unit) if name] or ["every_column"]
        for number, name in enumerate(names, 1):
            kind = f"  -- {self.columns[name]}" if name in self.columns else ""
            yield f"    {quoted(name)}{',' if number < len(names) else ''}{kind}"
        yield from _from(inside)

    def _type(self, column: str) -> str:
        return self.columns.get(column, "text")


def _from(conditions: list[str]) -> Iterator[str]:
    where = "\nwhere " + "\n    and ".join(conditions) if conditions else ""
    yield f"from fill_in{where};"


def _scalar(text: str) -> str:
    """The text as a YAML scalar, quoted if necessary."""
    return yaml.safe_dump(text, width=1_000, allow_unicode=True).splitlines()[0]
