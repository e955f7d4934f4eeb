"""The first draft of a declaration, from what is known of its table: a `defs.yaml` and a `queries.sql`.

A draft can't run: its statements read a table of the name `fill_in`, so that nothing is written, or deleted, before a
person has said what the table holds.
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
    """What `backfills new` and `dg scaffold defs dagster_backfills.PostgresBackfill` ask for."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    table: str
    """The table to fill: schema.table, or schema."Table"."""
    partition_column: str | None = None
    """Its column that holds the partition, if any."""
    unit: str | None = None
    """Its column that holds a part of a partition, a member's id say."""


@dataclass(frozen=True)
class Draft:
    """A declaration without its statements' sense. columns: the table's, with their types, where it was looked at."""

    name: str
    params: DraftParams
    columns: dict[str, str] = field(default_factory=dict)
    key: tuple[str, ...] = ()

    @classmethod
    def of_table(cls, name: str, params: DraftParams, table: Table) -> "Draft":
        """Of a table that is there. Raises UserError for a column that it has not."""
        for column in (params.partition_column, params.unit):
            if column is not None:
                table.column(column)
        columns = {c.name: c.type for c in table.columns if not c.managed and c.name != "updated_at"}
        return cls(name, params, columns, table.keys[0] if table.keys else ())

    def write(self, folder: Path) -> list[str]:
        """Write both files; returns what is to be filled in, with its place. Raises UserError for a file there."""
        texts = {folder / "defs.yaml": self._defs(), folder / "queries.sql": self._queries()}
        for file in texts:
            if file.exists():
                raise UserError(f"{file} is there already.", "Give the backfill another name.")
        folder.mkdir(parents=True, exist_ok=True)
        for file, lines in texts.items():
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        written = load_statements(folder / "queries.sql").by_name.values()
        return [f"{statement.place}: {statement.name}" for statement in written]

    def _defs(self) -> Iterator[str]:
        cut, unit = self.params.partition_column, self.params.unit
        yield from ("type: dagster_backfills.PostgresBackfill", "attributes:")
        if cut:
            yield f"  partitions: {{keys: {self.name}_keys}}"
        yield from ("  tables:", f"    - table: {_scalar(self.params.table)}")
        yield from (
            [f"      query: {self._query}"] if self._query != split_table(self.params.table)[1] else []
        )
        yield from ([f"      unit: {_scalar(unit)}"] if unit else [])
        yield from ([f"      partition_column: {_scalar(cut)}"] if cut else [])

    @property
    def _query(self) -> str:
        """The table's name, as far as a statement can have it."""
        return re.sub(r"\W", "_", split_table(self.params.table)[1])

    def _queries(self) -> Iterator[str]:
        cut, unit, rows = self.params.partition_column, self.params.unit, self._query
        inside = [f"{quoted(cut)} = any(:partition_keys::{self._type(cut)}[])"] if cut else []
        if cut:
            yield from (f"-- name: {self.name}_keys", "-- Every partition, the oldest first.")
            yield from (f"select distinct {quoted(cut)} from fill_in order by 1;", "")  # noqa: S608
        if unit:
            yield from (f"-- name: {rows}_units", "-- All that is due, by partition.")
            yield f"select {quoted(cut) if cut else chr(39) * 2} as partition, {quoted(unit)} as unit"
            yield from _from(inside)
            yield ""
            bind = f":unit_keys::{self._type(unit)}[]"
            inside = [*inside, f"({bind} is null or {quoted(unit)} = any({bind}))"]
        yield from (f"-- name: {rows}", "-- All rows that the table is to have.")
        if self.key:
            yield f"-- A row is told apart by {', '.join(self.key)}."
        elif self.columns:
            yield "-- Its rows can't be told apart: give it a primary key, or write it with `mode: replace`."
        yield "select"
        names = list(self.columns) or [name for name in (cut, unit) if name] or ["every_column"]
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
    """As YAML reads it again as a text."""
    return yaml.safe_dump(text, width=1_000, allow_unicode=True).splitlines()[0]
