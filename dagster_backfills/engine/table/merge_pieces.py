"""What the statements of a merge are made of: its table's names, types and comparisons, as SQL. No statement here."""

from dataclasses import dataclass

from psycopg import sql

from dagster_backfills.engine.model import Target
from dagster_backfills.engine.table.address import Address
from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.engine.table.entries import BEFORE, entry, names, standing
from dagster_backfills.engine.table.names import columns, ident, type_name

_SEEN = "backfill seen"  # the row version that the statement's snapshot has
_NOTHING = sql.SQL("")
_POINTS_IN_TIME = {"timestamp", "timestamptz"}
# No equality of their own, or one that takes different values for the same.
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
    """One table, how it is partitioned, and the columns that a source gives for it."""

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
        """The columns that make a row differ."""
        return [n for n in self.set_columns if n != self.target.touched]

    @property
    def touches(self) -> bool:
        return self.target.touched not in self.columns and any(
            c.name == self.target.touched and c.base_type in _POINTS_IN_TIME for c in self.table.columns
        )

    def typed(self, source: sql.Composable) -> sql.Composed:
        """The source's rows in the target's types, so that they compare as they will be stored."""
        casts = [
            sql.SQL("q.{c}::{t} as {c}").format(c=ident(n), t=type_name(self.table.column(n).cast))
            for n in self.columns
        ]
        if not self.address.stored:
            casts.append(sql.SQL("{}::text").format(self.address.label("q")))
        return sql.SQL("select {} from (\n{}\n) as q").format(sql.SQL(", ").join(casts), source)

    def named(self, *, units: bool) -> dict[str, sql.Composable]:
        """The pieces by name. units: of the slice only the units in the bind `unit_keys`.

        `s` are the source's rows, `o` those that stand there, `c` what differs, `g` what goes, `t` what is changed.
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
            "seen": ident(_SEEN),
            "key": columns("", self.key),
            "s_key": columns("s", self.key),
            "o_key": columns("o", self.key),
            "o_is_s": self._same_key("o", "s"),
            "t_is_s": self._same_key("t", "s"),
            "t_is_c": self._same_key("t", "c"),
            "t_is_g": self._same_key("t", "g"),
            "s_label": label("s"),
            "t_label": label("t"),
            "updated_label": label("t" if stored else "c"),
            # What a new row tells of its partition: itself, or the key by which the source knows that.
            "new_label": sql.SQL("{} as label").format(label("t")) if stored else columns("t", self.key),
            "o_inside": self.inside("o", units),
            "t_inside": self.inside("t", units),
            "differs": self._differs("o", "s"),
            "or_empty": or_empty if nullable else _NOTHING,
            "into": columns("", [*self.columns, *touched]),
            "set": sql.SQL(", ").join(assignments),
            "s_row": self._row("s"),
            "c_row": self._row("c"),
            "before": self._if_journaled(sql.SQL(", {} as {}").format(standing("o"), before)),
            "o_before": self._if_journaled(sql.SQL(", o.{}").format(before)),
            "entry": self._if_journaled(sql.SQL(", ") + names("t")),
            "new_entry": self.entry(after="t"),
            "updated_entry": self.entry(before=ident("c", BEFORE), after="t"),
            "gone_entry": self.entry(before=standing("t")),
        }

    def entry(self, *, before: sql.Composable | None = None, after: str = "") -> sql.Composable:
        """What a statement returns of a row `t` for the journal, behind a comma; nothing where there is none."""
        return self._if_journaled(
            sql.SQL(", ") + entry(self.table, self.target.touched, before=before, after=after)
        )

    def inside(self, alias: str, units: bool) -> sql.Composable:
        """Whether a row is of the slice."""
        inside = self.address.predicate(alias)
        if not units or self.target.unit is None:
            return inside
        return sql.SQL("{} and {} = any(%(unit_keys)s::text[]::{}[])").format(
            inside, ident(alias, self.target.unit), type_name(self.table.column(self.target.unit).cast)
        )

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
