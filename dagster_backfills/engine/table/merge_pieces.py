"""What the statements of a merge are made of: its table's names, types and comparisons, as SQL. No statement here."""

from dataclasses import dataclass

from psycopg import sql

from dagster_backfills.engine.model import Mode
from dagster_backfills.engine.table.address import Address
from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.engine.table.entries import entry
from dagster_backfills.engine.table.names import columns, ident, type_name

_POINTS_IN_TIME = {"timestamp", "timestamptz"}
# No equality of their own, or one that takes different values for the same.
_COMPARED_AS_TEXT = {"json", "xml", "citext", "point", "line", "lseg", "box", "path", "polygon", "circle"}


@dataclass(frozen=True)
class Pieces:
    """One table, how it is partitioned, and the columns that a source gives for it."""

    table: Table
    address: Address
    mode: Mode
    columns: tuple[str, ...]
    key: tuple[str, ...]
    unit: str | None
    touched: str
    journaled: bool = False

    @property
    def relation(self) -> sql.Identifier:
        return ident(self.table.schema, self.table.name)

    @property
    def set_columns(self) -> list[str]:
        return [n for n in self.columns if n not in self.key]

    @property
    def values(self) -> list[str]:
        """The columns that make a row differ."""
        return [n for n in self.set_columns if n != self.touched]

    @property
    def touches(self) -> bool:
        return self.touched not in self.columns and any(
            c.name == self.touched and c.base_type in _POINTS_IN_TIME for c in self.table.columns
        )

    @property
    def into(self) -> sql.Composed:
        names = [*self.columns, *([self.touched] if self.touches else [])]
        return sql.SQL("insert into {} as t ({})").format(
            self.relation, sql.SQL(", ").join(map(ident, names))
        )

    def row(self, alias: str) -> sql.Composed:
        return columns(alias, self.columns) + sql.SQL(", now()" if self.touches else "")

    def typed(self, source: sql.Composable) -> sql.Composed:
        """The source's rows in the target's types, so that they compare as they will be stored."""
        casts = [
            sql.SQL("q.{c}::{t} as {c}").format(c=ident(n), t=type_name(self.table.column(n).cast))
            for n in self.columns
        ]
        if not self.address.stored:
            casts.append(sql.SQL("{}::text").format(self.address.label("q")))
        return sql.SQL("select {} from (\n{}\n) as q").format(sql.SQL(", ").join(casts), source)

    def slice(self, alias: str, units: bool) -> sql.Composable:
        inside = self.address.predicate(alias)
        if not units or self.unit is None:
            return inside
        return sql.SQL("{} and {} = any(%(unit_keys)s::text[]::{}[])").format(
            inside, ident(alias, self.unit), type_name(self.table.column(self.unit).cast)
        )

    def same_key(self, left: str, right: str) -> sql.Composed:
        return sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(ident(left, n), ident(right, n)) for n in self.key
        )

    def differs(self, left: str, right: str) -> sql.Composable:
        if not self.values:
            return sql.SQL("false")
        return sql.SQL("({}) is distinct from ({})").format(
            sql.SQL(", ").join(self._comparable(left, n) for n in self.values),
            sql.SQL(", ").join(self._comparable(right, n) for n in self.values),
        )

    def _comparable(self, alias: str, name: str) -> sql.Composable:
        as_text = self.table.column(name).base_type.removeprefix("_") in _COMPARED_AS_TEXT
        return sql.SQL("{}::text").format(ident(alias, name)) if as_text else ident(alias, name)

    def entry(self, *, before: sql.Composable | None = None, after: str = "") -> sql.Composable:
        """What a statement returns of a row `t` for the journal, behind a comma; nothing where there is none."""
        if not self.journaled:
            return sql.SQL("")
        return sql.SQL(", ") + entry(self.table, self.touched, before=before, after=after)

    def given(self) -> sql.Composed:
        return sql.SQL("select {}, count(*), 0, 0, 0 from source as s group by 1").format(
            self.address.label("s")
        )
