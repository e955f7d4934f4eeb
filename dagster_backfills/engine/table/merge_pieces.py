"""SQL fragments for merge statements: names, casts and comparisons of one table. Not here: the statements (`merge`)."""

from dataclasses import dataclass

from psycopg import sql

from dagster_backfills.engine.model import Target
from dagster_backfills.engine.table.address import Address
from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.engine.table.entries import BEFORE, entry, names, row_text
from dagster_backfills.engine.table.names import columns, ident, type_name

_CTID = "backfill ctid"  # the ctid of the row version that the statement has read
_NOTHING = sql.SQL("")
_POINTS_IN_TIME = {"timestamp", "timestamptz"}
# Types with no equality operator, or with one that treats different values as equal.
_COMPARED_AS_TEXT = {
    "json",
    "jsonpath",
    "xml",
    "citext",
    "point",
    "line",
    "lseg",
    "box",
    "path",
    "polygon",
    "circle",
}


@dataclass(frozen=True)
class Pieces:
    """Fragments for one table. columns: those that the source returns. key: those that identify a row."""

    table: Table
    address: Address
    target: Target
    columns: tuple[str, ...]
    key: tuple[str, ...]
    journaled: bool

    @property
    def set_columns(self) -> list[str]:
        return [n for n in self.columns if n not in self.key]

    @property
    def values(self) -> list[str]:
        """The columns that are compared to find changed rows."""
        return [n for n in self.set_columns if n != self.target.touched]

    @property
    def touches(self) -> bool:
        """Whether writes set the `touched` column to now."""
        return self.target.touched not in self.columns and any(
            c.name == self.target.touched and c.base_type in _POINTS_IN_TIME for c in self.table.columns
        )

    @property
    def unit_can_be_null(self) -> bool:
        return self.target.unit is not None and not self.table.column(self.target.unit).not_null

    def typed(self, source: sql.Composable) -> sql.Composed:
        """Casts the source's rows to the table's types, so that they are compared as they would be stored."""
        casts = [
            sql.SQL("q.{c}::{t} as {c}").format(c=ident(n), t=type_name(self.table.column(n).cast))
            for n in self.columns
        ]
        if not self.address.stored:
            casts.append(sql.SQL("{}::text").format(self.address.label("q")))
        return sql.SQL("select {} from (\n{}\n) as q").format(sql.SQL(", ").join(casts), source)

    def named(self, *, units: bool) -> dict[str, sql.Composable]:
        """Returns the fragments by name. units: restrict the slice to the units in the parameter `unit_keys`.

        Aliases: `s` the source's rows, `o` existing rows, `c` changed rows, `g` rows to delete, `t` the table written.
        """
        stored, label = self.address.stored, self.address.label
        touched = [self.target.touched] if self.touches else []
        assignments = [sql.SQL("{} = {}").format(ident(n), ident("c", n)) for n in self.set_columns]
        assignments += [sql.SQL("{} = now()").format(ident(n)) for n in touched]
        nullable = any(not self.table.column(n).not_null for n in self.key)
        or_empty = sql.SQL(" or bool_or(num_nulls({}) > 0)").format(columns("s", self.key))
        before = ident(BEFORE)
        return {
            "t": self.table.relation,
            "ctid": ident(_CTID),
            "key": columns("", self.key),
            "s_key": columns("s", self.key),
            "o_key": columns("o", self.key),
            "o_is_s": self._same_key("o", "s"),
            "t_is_s": self._same_key("t", "s"),
            "t_is_c": self._same_key("t", "c"),
            "t_is_g": self._same_key("t", "g"),
            "s_label": label("s"),
            "s_unit": ident("s", self.target.unit) if self.target.unit else _NOTHING,
            "t_label": label("t"),
            "updated_label": label("t" if stored else "c"),
            # The new row's partition; if the table does not store it, the key to look it up in the source.
            "new_label": sql.SQL("{} as label").format(label("t")) if stored else columns("t", self.key),
            "o_inside": self.inside("o", units),
            "t_inside": self.inside("t", units),
            "differs": self._differs("o", "s"),
            "or_empty": or_empty if nullable else _NOTHING,
            "into": columns("", [*self.columns, *touched]),
            "set": sql.SQL(", ").join(assignments),
            "s_row": self._row("s"),
            "c_row": self._row("c"),
            "before": self._if_journaled(sql.SQL(", {} as {}").format(row_text("o"), before)),
            "o_before": self._if_journaled(sql.SQL(", o.{}").format(before)),
            "entry": self._if_journaled(sql.SQL(", ") + names("t")),
            "new_entry": self.entry(after="t"),
            "updated_entry": self.entry(before=ident("c", BEFORE), after="t"),
            "deleted_entry": self.entry(before=row_text("t")),
        }

    def entry(self, *, before: sql.Composable | None = None, after: str = "") -> sql.Composable:
        """Columns for the journal in a RETURNING clause, after a comma; empty without a journal."""
        return self._if_journaled(
            sql.SQL(", ") + entry(self.table, self.target.touched, before=before, after=after)
        )

    def inside(self, alias: str, units: bool) -> sql.Composable:
        """A condition that is true for rows of the slice."""
        inside = self.address.predicate(alias)
        if not units or self.target.unit is None:
            return inside
        unit = ident(alias, self.target.unit)
        in_slice = sql.SQL("{} = any(%(unit_keys)s::text[]::{}[])").format(
            unit, type_name(self.table.column(self.target.unit).cast)
        )
        if self.unit_can_be_null:
            # Stored rows without a unit: the source must not return any, so every slice deletes them.
            in_slice = sql.SQL("({} or {} is null)").format(in_slice, unit)
        return sql.SQL("{} and {}").format(inside, in_slice)

    def _if_journaled(self, piece: sql.Composable) -> sql.Composable:
        return piece if self.journaled else _NOTHING

    def _row(self, alias: str) -> sql.Composed:
        return columns(alias, self.columns) + sql.SQL(", now()" if self.touches else "")

    def _same_key(self, left: str, right: str) -> sql.Composed:
        return sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(ident(left, n), ident(right, n)) for n in self.key
        )

    def _differs(self, left: str, right: str) -> sql.Composable:
        if not self.values:
            return sql.SQL("false")
        return sql.SQL("({}) is distinct from ({})").format(
            sql.SQL(", ").join(self._comparable(left, n) for n in self.values),
            sql.SQL(", ").join(self._comparable(right, n) for n in self.values),
        )

    def _comparable(self, alias: str, name: str) -> sql.Composable:
        as_text = self.table.column(name).base_type.removeprefix("_") in _COMPARED_AS_TEXT
        return sql.SQL("{}::text").format(ident(alias, name)) if as_text else ident(alias, name)
