"""What the statements of a merge are made of: its table's names, types and comparisons, and the parts that use them.

Not here: the whole statements (`merge`).
"""

from dataclasses import dataclass

from psycopg import sql

from dagster_backfills.engine.model import Target
from dagster_backfills.engine.table.address import Address
from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.engine.table.entries import BEFORE, entry, names, standing
from dagster_backfills.engine.table.names import columns, ident, type_name

_SEEN = "backfill seen"  # the row version that the statement's snapshot has
_POINTS_IN_TIME = {"timestamp", "timestamptz"}
# No equality of their own, or one that takes different values for the same.
_COMPARED_AS_TEXT = {"json", "xml", "citext", "point", "line", "lseg", "box", "path", "polygon", "circle"}


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

    @property
    def into(self) -> sql.Composed:
        given = [*self.columns, *([self.target.touched] if self.touches else [])]
        return sql.SQL("insert into {} as t ({})").format(self.table.relation, columns("", given))

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
        if not units or self.target.unit is None:
            return inside
        return sql.SQL("{} and {} = any(%(unit_keys)s::text[]::{}[])").format(
            inside, ident(alias, self.target.unit), type_name(self.table.column(self.target.unit).cast)
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
        return sql.SQL(", ") + entry(self.table, self.target.touched, before=before, after=after)

    def given(self) -> sql.Composed:
        return sql.SQL("select {}, count(*), 0, 0, 0 from source as s group by 1").format(
            self.address.label("s")
        )

    # ---- parts of statements ----------------------------------------------------------------------------------

    def compose(self, text: str, **parts: sql.Composable) -> sql.Composed:
        """SQL with the table as `{t}`, its key as `{key}`, the row version that the snapshot has as `{seen}`."""
        return sql.SQL(text).format(
            t=self.table.relation, key=columns("", self.key), seen=ident(_SEEN), **parts
        )

    def bad_key(self) -> sql.Composed:
        """A key that stands for two rows, or for none: written as it is, the one would come and go at random."""
        nullable = any(not self.table.column(name).not_null for name in self.key)
        return sql.SQL(
            "select row({key})::text as key from source as s group by {key} having count(*) > 1{empty} limit 1"
        ).format(
            key=columns("s", self.key),
            empty=sql.SQL(" or bool_or(num_nulls({}) > 0)").format(columns("s", self.key))
            if nullable
            else sql.SQL(""),
        )

    def changed(self, units: bool) -> sql.Composed:
        """The source's rows that are new or differ, each with the version of the row that stands there."""
        before, of_before = sql.SQL(""), sql.SQL("")
        if self.journaled:
            before = sql.SQL(", {} as {}").format(standing("o"), ident(BEFORE))
            of_before = sql.SQL(", o.{}").format(ident(BEFORE))
        # A slice of units is small beside its partition: each row is looked up by its key. LIMIT keeps the planner from
        # reading the whole partition instead, once a slice. In the key's order, so that two writers of the same rows
        # meet in the same order.
        there = self.compose(
            "lateral (select o.*, o.ctid as {seen}{before} from {t} as o where {same} limit 1) as o on true"
            if units
            else "(select o.*, o.ctid as {seen}{before} from {t} as o) as o on {same}",
            before=before,
            same=self.same_key("o", "s"),
        )
        return self.compose(
            "select s.*, o.{seen}{of_before} from source as s left join {there}\n"
            "where o.{seen} is null or {differs}\norder by {order}",
            of_before=of_before,
            there=there,
            differs=self.differs("o", "s"),
            order=columns("s", self.key),
        )

    def updated(self) -> sql.Composed:
        assignments = [sql.SQL("{} = {}").format(ident(n), ident("c", n)) for n in self.set_columns]
        if self.touches:
            assignments.append(sql.SQL("{} = now()").format(ident(self.target.touched)))
        return self.compose(
            "update {t} as t set {set} from changed as c where t.ctid = c.{seen} and {same}\n"
            "returning {label} as label{entry}",
            set=sql.SQL(", ").join(assignments),
            same=self.same_key("t", "c"),
            label=self.address.label("t" if self.address.stored else "c"),
            entry=self.entry(before=ident("c", BEFORE), after="t"),
        )

    def inserted(self, selected: sql.Composable) -> list[tuple[str, sql.Composable]]:
        """The insert of what is selected, and the partitions of its rows: in the table, or as the source knows them."""
        inserted = self.compose(
            "{into} {selected}\non conflict ({key}) do nothing returning {returned}{entry}",
            into=self.into,
            selected=selected,
            returned=sql.SQL("{} as label").format(self.address.label("t"))
            if self.address.stored
            else columns("t", self.key),
            entry=self.entry(after="t"),
        )
        if self.address.stored:
            return [("inserted", inserted)]
        by_source = sql.SQL("select {} as label{} from new as t inner join source as s on {}").format(
            self.address.label("s"),
            sql.SQL(", ") + names("t") if self.journaled else sql.SQL(""),
            self.same_key("t", "s"),
        )
        return [("new", inserted), ("inserted", by_source)]

    def leaving(self, units: bool) -> sql.Composed:
        """Rows of the slice that the source does not give."""
        return self.compose(
            "select {o_key}, o.ctid as {seen} from {t} as o\n"
            "where {inside} and not exists (select from source as s where {same})",
            o_key=columns("o", self.key),
            inside=self.slice("o", units),
            same=self.same_key("o", "s"),
        )

    def gone(self) -> sql.Composed:
        return self.compose(
            "delete from {t} as t using leaving as g where t.ctid = g.{seen} and {same}\n"
            "returning {label} as label{entry}",
            same=self.same_key("t", "g"),
            label=self.address.label("t"),
            entry=self.entry(before=standing("t")),
        )
