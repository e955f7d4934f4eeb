"""The statements that put a source's rows into a table's slice, one a write mode. They are composed, not run, here.

Each returns one row a partition: its key, and rows from the source, inserted, updated and deleted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from dagster_backfills.lib.engine.model import Mode
from dagster_backfills.lib.errors import UserError
from dagster_backfills.lib.postgres.address import Address
from dagster_backfills.lib.postgres.catalog import Table

_TOUCHED = "updated_at"  # set by us on each write of a row, and no difference in itself


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
        for name in columns:
            if table.column(name).managed:
                raise UserError(
                    f"Column {name!r} of {table.schema}.{table.name} is filled by the database itself.",
                    hint="Leave it out of the asset's query or frame.",
                )
        key = table.key_among(columns, declared_key)
        if mode != "replace" and not key:
            raise UserError(
                f"Table {table.schema}.{table.name} has no unique constraint on columns that the asset gives "
                f"({', '.join(columns)}), so that its rows can't be told apart.",
                hint="Add a primary key in a migration, return the key's columns, or write with mode 'replace'.",
            )
        if unit is not None:
            table.column(unit)
        return cls(table, address, mode, tuple(columns), key, unit)

    def statement(self, source: sql.Composable, *, units: bool) -> sql.Composed:
        """The whole statement for a source SELECT; `units`: only the units in the bind `unit_keys`."""
        body = {"upsert": self._upsert, "insert_missing": self._insert_missing, "replace": self._replace}
        return body[self.mode](source, units)

    # The source's rows in the target's types, so that they compare as they will be stored.
    def _typed(self, source: sql.Composable) -> sql.Composed:
        columns = [
            sql.SQL("q.{c}::{t} as {c}").format(c=sql.Identifier(n), t=sql.SQL(self.table.column(n).type))
            for n in self.columns
        ]
        return (
            sql.SQL("select {} from (\n").format(sql.SQL(", ").join(columns)) + source + sql.SQL("\n) as q")
        )

    def _slice(self, alias: str, units: bool) -> sql.Composable:
        inside = self.address.predicate(alias)
        if not units or self.unit is None:
            return inside
        return sql.SQL("{} and {} = any(%(unit_keys)s::text[]::{}[])").format(
            inside, self._of(alias, self.unit), sql.SQL(self.table.column(self.unit).type)
        )

    @staticmethod
    def _of(alias: str, name: str) -> sql.Composable:
        return sql.SQL(".").join([sql.Identifier(alias), sql.Identifier(name)])

    def _list(self, alias: str, names: Sequence[str]) -> sql.Composable:
        return sql.SQL(", ").join(self._of(alias, n) for n in names)

    def _comparable(self, alias: str, name: str) -> sql.Composable:
        column = self._of(alias, name)
        # json, xml and the geometric types have no equality of their own.
        odd = self.table.column(name).base_type in {"json", "xml", "point", "polygon"}
        return sql.SQL("{}::text").format(column) if odd else column

    def _same_key(self, left: str, right: str) -> sql.Composable:
        return sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(self._of(left, n), self._of(right, n)) for n in self.key
        )

    def _differs(self, left: str, right: str) -> sql.Composable:
        names = [n for n in self.columns if n not in self.key and n != _TOUCHED]
        if not names:
            return sql.SQL("false")
        return sql.SQL("({}) is distinct from ({})").format(
            sql.SQL(", ").join(self._comparable(left, n) for n in names),
            sql.SQL(", ").join(self._comparable(right, n) for n in names),
        )

    @property
    def _touches(self) -> bool:
        return _TOUCHED not in self.columns and any(c.name == _TOUCHED for c in self.table.columns)

    def _insert(self, rows: sql.Composable) -> sql.Composed:
        names = [*self.columns, *([_TOUCHED] if self._touches else [])]
        return sql.SQL("insert into {} as t ({})\n{}").format(
            sql.Identifier(self.table.schema, self.table.name),
            sql.SQL(", ").join(sql.Identifier(n) for n in names),
            rows,
        )

    def _rows(self, alias: str) -> sql.Composable:
        touched = sql.SQL(", now()") if self._touches else sql.SQL("")
        return sql.SQL("select {}{}").format(self._list(alias, self.columns), touched)

    def _tally(self, parts: Sequence[tuple[str, str, str, str, str, sql.Composable]]) -> sql.Composed:
        """Sum `(relation, source, inserted, updated, deleted, partition)` to one row a partition."""
        counted = sql.SQL("\nunion all\n").join(
            sql.SQL("select {}, {}, {}, {}, {} from {} group by 1").format(
                label,
                sql.SQL(given),
                sql.SQL(inserted),
                sql.SQL(updated),
                sql.SQL(deleted),
                sql.SQL(relation),
            )
            for relation, given, inserted, updated, deleted, label in parts
        )
        return sql.SQL(
            "select partition, sum(given)::bigint, sum(inserted)::bigint, sum(updated)::bigint, "
            "sum(deleted)::bigint\nfrom (\n{}\n) as tally (partition, given, inserted, updated, deleted)\n"
            "group by partition"
        ).format(counted)

    def _upsert(self, source: sql.Composable, units: bool) -> sql.Composed:
        relation = sql.Identifier(self.table.schema, self.table.name)
        assignments = [
            sql.SQL("{c} = excluded.{c}").format(c=sql.Identifier(n))
            for n in self.columns
            if n not in self.key
        ]
        if self._touches:
            assignments.append(sql.SQL("{} = now()").format(sql.Identifier(_TOUCHED)))
        # Only rows that differ are written at all. Written in key order, two batches can't deadlock; and a row
        # that another transaction has written since our snapshot is newer than what we computed: it stays.
        conflict = (
            sql.SQL("do update set {} where {} and backfill.is_older(t.xmin)").format(
                sql.SQL(", ").join(assignments), self._differs("t", "excluded")
            )
            if [n for n in self.columns if n not in self.key]
            else sql.SQL("do nothing")
        )
        written = self._insert(
            sql.SQL(
                "{rows} from source as s\nleft join {t} as o on {same}\nwhere {missing} is null or {differs}\n"
                "order by {order}\non conflict ({key}) {conflict}\nreturning {label} as partition, t.xmax = 0 as is_new"
            ).format(
                rows=self._rows("s"),
                t=relation,
                same=self._same_key("o", "s"),
                missing=self._of("o", self.key[0]),
                differs=self._differs("o", "s"),
                order=self._list("s", self.key),
                key=sql.SQL(", ").join(sql.Identifier(n) for n in self.key),
                conflict=conflict,
                label=self.address.label("t"),
            )
        )
        gone = sql.SQL(
            "delete from {t} as t where {inside} and not exists (select from source as s where {same})\n"
            "returning {label} as partition"
        ).format(
            t=relation,
            inside=self._slice("t", units),
            same=self._same_key("t", "s"),
            label=self.address.label("t"),
        )
        tally = self._tally(
            [
                ("source as s", "count(*)", "0", "0", "0", self.address.label("s")),
                ("written", "0", "count(*) filter (where is_new)", "count(*) filter (where not is_new)", "0",
                 sql.SQL("partition")),
                ("gone", "0", "0", "0", "count(*)", sql.SQL("partition")),
            ]
        )  # fmt: skip
        return sql.SQL(
            "with source as materialized (\n{}\n),\nwritten as (\n{}\n),\ngone as (\n{}\n)\n{}"
        ).format(self._typed(source), written, gone, tally)

    def _insert_missing(self, source: sql.Composable, units: bool) -> sql.Composed:
        relation = sql.Identifier(self.table.schema, self.table.name)
        written = self._insert(
            sql.SQL(
                "{rows} from ({source}) as s\nwhere not exists (select from {t} as o where {same})\n"
                "on conflict ({key}) do nothing\nreturning {label} as partition"
            ).format(
                rows=self._rows("s"),
                source=self._typed(source),
                t=relation,
                same=self._same_key("o", "s"),
                key=sql.SQL(", ").join(sql.Identifier(n) for n in self.key),
                label=self.address.label("t"),
            )
        )
        tally = self._tally([("written", "count(*)", "count(*)", "0", "0", sql.SQL("partition"))])
        return sql.SQL("with written as (\n{}\n)\n{}").format(written, tally)

    def _replace(self, source: sql.Composable, units: bool) -> sql.Composed:
        written = self._insert(
            sql.SQL("{} from ({}) as s\nreturning {} as partition").format(
                self._rows("s"), self._typed(source), self.address.label("t")
            )
        )
        tally = self._tally([("written", "count(*)", "count(*)", "0", "0", sql.SQL("partition"))])
        return sql.SQL("with written as (\n{}\n)\n{}").format(written, tally)

    def clear(self, *, units: bool) -> sql.Composed | None:
        """What runs before the statement: `replace` empties the slice in a statement of its own."""
        if self.mode != "replace":
            return None
        return sql.SQL(
            "with gone as (delete from {} as t where {} returning {} as partition)\n"
            "select partition, 0::bigint, 0::bigint, 0::bigint, count(*) from gone group by partition"
        ).format(
            sql.Identifier(self.table.schema, self.table.name),
            self._slice("t", units),
            self.address.label("t"),
        )
