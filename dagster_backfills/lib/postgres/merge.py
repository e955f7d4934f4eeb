"""The statements that put a source's rows into a table's slice, one a write mode. They are composed, not run, here.

Each returns one row a partition: its label, rows from the source, inserted, updated and deleted, and (in the last
column) a key that the source has twice or without a value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from dagster_backfills.lib.engine.model import Mode
from dagster_backfills.lib.errors import UserError
from dagster_backfills.lib.postgres.address import Address
from dagster_backfills.lib.postgres.catalog import Table
from dagster_backfills.lib.postgres.names import columns, ident, type_name

_TOUCHED = "updated_at"  # set by us on each write of a row, and no difference in itself
_SEEN = "backfill seen"  # the row version that the statement's snapshot has
# No equality of their own, or one that takes different values for the same.
_COMPARED_AS_TEXT = {"json", "xml", "citext", "point", "line", "lseg", "box", "path", "polygon", "circle"}


@dataclass(frozen=True)
class Merge:
    """One table's merge: what is known of it before the slice is."""

    table: Table
    address: Address
    mode: Mode
    columns: tuple[str, ...]
    key: tuple[str, ...]
    unit: str | None

    @classmethod
    def plan(
        cls,
        table: Table,
        address: Address,
        mode: Mode,
        columns: Sequence[str],
        declared_key: Sequence[str] | None,
        unit: str | None,
    ) -> "Merge":
        """Check the source's columns against the table. Raises UserError that names what does not fit."""
        name = f"{table.schema}.{table.name}"
        for position, column in enumerate(columns):
            if table.column(column).managed:
                raise UserError(
                    f"Column {column!r} of {name} is filled by the database itself.",
                    hint="Leave it out of the asset's query or frame.",
                )
            if column in columns[:position]:
                raise UserError(
                    f"The source of {name} has two columns of the name {column!r}.",
                    hint="Rename one of them.",
                )
        key = table.key_among(columns, declared_key)
        if mode != "replace" and not key:
            raise UserError(
                f"Table {name} has no unique constraint on columns that the asset gives "
                f"({', '.join(columns)}), so that its rows can't be told apart.",
                hint="Add a primary key in a migration, return the key's columns, or write with mode 'replace'.",
            )
        if unit is not None:
            table.column(unit)
        return cls(table, address, mode, tuple(columns), key, unit)

    def statement(self, source: sql.Composable, *, units: bool) -> sql.Composed:
        """The whole statement for a source SELECT; `units`: only the units in the bind `unit_keys`."""
        if self.mode == "upsert":
            return self._upsert(source, units)
        return self._insert_missing(source) if self.mode == "insert_missing" else self._replace(source)

    def clear(self, *, units: bool) -> sql.Composed | None:
        """What runs before the statement: `replace` empties the slice in a statement of its own."""
        if self.mode != "replace":
            return None
        gone = sql.SQL("delete from {} as t where {} returning {} as label").format(
            self._relation, self._slice("t", units), self.address.label("t")
        )
        return self._with([("gone", gone)], [_counted("gone", deleted="count(*)")])

    # ---- the three modes --------------------------------------------------------------------------------------

    def _upsert(self, source: sql.Composable, units: bool) -> sql.Composed:
        """Write only rows that are new or differ, and only over the version that this statement has seen.

        A row that another transaction has written since then is newer than what was computed here, and stays:
        its version is at another place by then, which is what an update that waited for it looks at again.
        """
        parts = [
            ("source", self._typed(source)),
            ("bad_key", self._bad_key()),
            ("changed", self._changed()),
            ("inserted", self._inserted()),
            ("gone", self._gone(units)),
        ]
        counted: list[sql.Composable] = [
            self._given(),
            _counted("inserted", inserted="count(*)"),
            _counted("gone", deleted="count(*)"),
        ]
        if self._values:
            parts.insert(3, ("updated", self._updated()))
            counted.append(_counted("updated", updated="count(*)"))
        return self._with(parts, counted, bad_key=True)

    def _insert_missing(self, source: sql.Composable) -> sql.Composed:
        inserted = sql.SQL(
            "{into} select {values} from source as s where not exists (select from {t} as o where {same})\n"
            "on conflict ({key}) do nothing returning {label} as label"
        ).format(
            into=self._into,
            values=self._row("s"),
            t=self._relation,
            same=self._same_key("o", "s"),
            key=sql.SQL(", ").join(map(ident, self.key)),
            label=self.address.label("t"),
        )
        parts = [("source", self._typed(source)), ("inserted", inserted)]
        return self._with(parts, [self._given(), _counted("inserted", inserted="count(*)")])

    def _replace(self, source: sql.Composable) -> sql.Composed:
        inserted = sql.SQL("{} select {} from ({}) as s returning {} as label").format(
            self._into, self._row("s"), self._typed(source), self.address.label("t")
        )
        return self._with(
            [("inserted", inserted)], [_counted("inserted", given="count(*)", inserted="count(*)")]
        )

    # ---- parts of the upsert ----------------------------------------------------------------------------------

    def _changed(self) -> sql.Composed:
        # In the key's order, so that two writers of the same rows meet in the same order.
        return sql.SQL(
            "select s.*, o.ctid as {seen} from source as s left join {t} as o on {same}\n"
            "where o.ctid is null or {differs}\norder by {order}"
        ).format(
            seen=ident(_SEEN),
            t=self._relation,
            same=self._same_key("o", "s"),
            differs=self._differs("o", "s"),
            order=columns("s", self.key),
        )

    def _updated(self) -> sql.Composed:
        assignments = [sql.SQL("{} = {}").format(ident(n), ident("c", n)) for n in self._set_columns]
        if self._touches:
            assignments.append(sql.SQL("{} = now()").format(ident(_TOUCHED)))
        return sql.SQL(
            "update {t} as t set {set} from changed as c where t.ctid = c.{seen} and {same}\n"
            "returning {label} as label"
        ).format(
            t=self._relation,
            set=sql.SQL(", ").join(assignments),
            seen=ident(_SEEN),
            same=self._same_key("t", "c"),
            label=self.address.label("t"),
        )

    def _inserted(self) -> sql.Composed:
        return sql.SQL(
            "{into} select {values} from changed as c where c.{seen} is null\n"
            "on conflict ({key}) do nothing returning {label} as label"
        ).format(
            into=self._into,
            values=self._row("c"),
            seen=ident(_SEEN),
            key=sql.SQL(", ").join(map(ident, self.key)),
            label=self.address.label("t"),
        )

    def _gone(self, units: bool) -> sql.Composed:
        return sql.SQL(
            "delete from {t} as t using (\n"
            "select {key}, o.ctid as {seen} from {t} as o\n"
            "where {inside} and not exists (select from source as s where {same})\n"
            ") as g where t.ctid = g.{seen} and {own} returning {label} as label"
        ).format(
            t=self._relation,
            key=columns("o", self.key),
            seen=ident(_SEEN),
            inside=self._slice("o", units),
            same=self._same_key("o", "s"),
            own=self._same_key("t", "g"),
            label=self.address.label("t"),
        )

    def _bad_key(self) -> sql.Composed:
        """A key that stands for two rows, or for none: written as it is, the one would come and go at random."""
        condition: sql.Composable = sql.SQL("count(*) > 1")
        if any(not self.table.column(name).not_null for name in self.key):
            condition = sql.SQL("count(*) > 1 or bool_or(num_nulls({}) > 0)").format(columns("s", self.key))
        return sql.SQL(
            "select row({key})::text as key from source as s group by {key} having {condition} limit 1"
        ).format(key=columns("s", self.key), condition=condition)

    # ---- pieces -----------------------------------------------------------------------------------------------

    @property
    def _relation(self) -> sql.Identifier:
        return ident(self.table.schema, self.table.name)

    @property
    def _set_columns(self) -> list[str]:
        return [n for n in self.columns if n not in self.key]

    @property
    def _values(self) -> list[str]:
        """The columns that make a row differ."""
        return [n for n in self._set_columns if n != _TOUCHED]

    @property
    def _touches(self) -> bool:
        return _TOUCHED not in self.columns and any(c.name == _TOUCHED for c in self.table.columns)

    @property
    def _into(self) -> sql.Composed:
        names = [*self.columns, *([_TOUCHED] if self._touches else [])]
        return sql.SQL("insert into {} as t ({})").format(
            self._relation, sql.SQL(", ").join(map(ident, names))
        )

    def _row(self, alias: str) -> sql.Composed:
        return columns(alias, self.columns) + sql.SQL(", now()" if self._touches else "")

    def _typed(self, source: sql.Composable) -> sql.Composed:
        """The source's rows in the target's types, so that they compare as they will be stored."""
        casts = [
            sql.SQL("q.{c}::{t} as {c}").format(c=ident(n), t=type_name(self.table.column(n).cast))
            for n in self.columns
        ]
        return sql.SQL("select {} from (\n{}\n) as q").format(sql.SQL(", ").join(casts), source)

    def _slice(self, alias: str, units: bool) -> sql.Composable:
        inside = self.address.predicate(alias)
        if not units or self.unit is None:
            return inside
        return sql.SQL("{} and {} = any(%(unit_keys)s::text[]::{}[])").format(
            inside, ident(alias, self.unit), type_name(self.table.column(self.unit).cast)
        )

    def _same_key(self, left: str, right: str) -> sql.Composed:
        return sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(ident(left, n), ident(right, n)) for n in self.key
        )

    def _differs(self, left: str, right: str) -> sql.Composable:
        if not self._values:
            return sql.SQL("false")
        return sql.SQL("({}) is distinct from ({})").format(
            sql.SQL(", ").join(self._comparable(left, n) for n in self._values),
            sql.SQL(", ").join(self._comparable(right, n) for n in self._values),
        )

    def _comparable(self, alias: str, name: str) -> sql.Composable:
        as_text = self.table.column(name).base_type.removeprefix("_") in _COMPARED_AS_TEXT
        return sql.SQL("{}::text").format(ident(alias, name)) if as_text else ident(alias, name)

    def _given(self) -> sql.Composed:
        return sql.SQL("select {}, count(*), 0, 0, 0 from source as s group by 1").format(
            self.address.label("s")
        )

    @staticmethod
    def _with(
        parts: Sequence[tuple[str, sql.Composed]], counted: Sequence[sql.Composable], *, bad_key: bool = False
    ) -> sql.Composed:
        """Common table expressions, and their counts added up to one row a partition."""
        ctes = [
            sql.SQL("{} as {}(\n{}\n)").format(
                sql.Identifier(name),
                sql.SQL("materialized " if name in ("source", "changed") else ""),
                body,
            )
            for name, body in parts
        ]
        return sql.SQL(
            "with {ctes}\nselect label, sum(given)::bigint, sum(inserted)::bigint, sum(updated)::bigint, "
            "sum(deleted)::bigint, {bad_key}\nfrom (\n{counted}\n) as n (label, given, inserted, updated, deleted)\n"
            "group by label"
        ).format(
            ctes=sql.SQL(",\n").join(ctes),
            bad_key=sql.SQL("(select key from bad_key)" if bad_key else "null::text"),
            counted=sql.SQL("\nunion all\n").join(counted),
        )


def _counted(
    relation: str, *, given: str = "0", inserted: str = "0", updated: str = "0", deleted: str = "0"
) -> sql.SQL:
    return sql.SQL(f"select label, {given}, {inserted}, {updated}, {deleted} from {relation} group by label")  # noqa: S608
