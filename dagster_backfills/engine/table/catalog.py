"""Reads tables from Postgres's catalog: columns, types and keys. Not here: creating tables (migrations)."""

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from dagster_backfills.engine.table.names import ident
from dagster_backfills.errors import UserError, did_you_mean

_COLUMNS = """
select
    a.attname,
    format_type(a.atttypid, a.atttypmod),
    a.attnotnull,
    a.attgenerated <> '' or a.attidentity <> '' as managed,
    col_description(a.attrelid, a.attnum),
    coalesce(b.typname, t.typname),
    -- A cast to varchar(3) silently truncates longer values. Without the length, the assignment rejects them.
    case coalesce(b.typname, t.typname)
        when 'bpchar' then 'bpchar'
        when '_bpchar' then 'bpchar[]'
        when 'bit' then 'varbit'
        when '_bit' then 'varbit[]'
        else format_type(
            coalesce(b.oid, t.oid),
            case when coalesce(b.typname, t.typname) not in ('varchar', '_varchar', 'varbit', '_varbit')
                    then coalesce(nullif(t.typtypmod, -1), a.atttypmod)
            end
        )
    end,
    a.attgenerated <> '',
    a.attidentity = 'a'
from pg_attribute as a
inner join pg_type as t on a.atttypid = t.oid
left join pg_type as b on t.typbasetype = b.oid
where a.attrelid = to_regclass(%(relation)s) and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""

_KEYS = """
select
    i.indisprimary,
    array(
        select a.attname::text
        from unnest(i.indkey::smallint[]) with ordinality as k (attnum, position)
        inner join pg_attribute as a on a.attrelid = i.indrelid and k.attnum = a.attnum
        where k.position <= i.indnkeyatts
        order by k.position
    )
from pg_index as i
where i.indrelid = to_regclass(%(relation)s)
    and i.indisunique and i.indpred is null and i.indexprs is null and i.indimmediate
order by i.indisprimary desc, i.indexrelid
"""


_TABLES = """
select n.nspname || '.' || c.relname
from pg_class as c
inner join pg_namespace as n on c.relnamespace = n.oid
where c.relkind in ('r', 'p', 'v', 'm', 'f') and (n.nspname !~ '^pg_' and n.nspname <> 'information_schema')
"""


@dataclass(frozen=True)
class Column:
    """One column.

    managed: the database fills it (identity or generated). base_type: the short name of its type; for a domain, of the
    underlying type. cast: the type that values are cast to before they are compared and written, without the length
    limit, which the assignment enforces. generated: can't be written. always: `generated always as identity`, can't be
    updated.
    """

    name: str
    type: str
    not_null: bool
    managed: bool
    description: str | None
    base_type: str
    cast: str
    generated: bool = False
    always: bool = False


@dataclass(frozen=True)
class Table:
    """One table: its columns in order, and its unique keys with the primary key first."""

    database: str
    schema: str
    name: str
    columns: tuple[Column, ...]
    keys: tuple[tuple[str, ...], ...]

    @property
    def qualified(self) -> str:
        return f"{self.database}.{self.schema}.{self.name}"

    @property
    def relation(self) -> psycopg.sql.Identifier:
        """The table's name, for statements that are executed with parameters."""
        return ident(self.schema, self.name)

    @property
    def identity(self) -> tuple[str, ...]:
        """The first unique key whose columns are all not null, or ()."""
        return next((key for key in self.keys if all(self.column(n).not_null for n in key)), ())

    def column(self, name: str) -> Column:
        """Returns the column of that name. Raises UserError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise UserError(
            f"Table {self.schema}.{self.name} has no column {name!r}; "
            f"it has {', '.join(c.name for c in self.columns)}.",
            hint=did_you_mean(name, [c.name for c in self.columns]) + " Add columns in a migration.",
        )

    def key_among(self, available: Sequence[str], declared: Sequence[str] | None) -> tuple[str, ...]:
        """Returns the key that identifies rows: the declared one, or the first unique key within the available columns.

        Returns () if there is none. Raises UserError if the declared columns have no unique constraint.
        """
        if declared is not None:
            if not any(set(key) == set(declared) for key in self.keys):
                raise UserError(
                    f"Table {self.schema}.{self.name} has no unique constraint on ({', '.join(declared)}).",
                    hint="Its unique constraints: "
                    + ("; ".join(f"({', '.join(key)})" for key in self.keys) or "none")
                    + ".",
                )
            return tuple(declared)
        return next((key for key in self.keys if set(key) <= set(available)), ())


def read_table(conn: psycopg.Connection, schema: str, name: str) -> Table:
    """Reads one table from the catalog. Raises UserError if it does not exist."""
    relation = psycopg.sql.Identifier(schema, name).as_string(conn)
    columns = tuple(Column(*row) for row in conn.execute(_COLUMNS, {"relation": relation}))
    database = conn.info.dbname
    if not columns:
        raise UserError(
            f"Table {schema}.{name} does not exist in database {database!r}.",
            hint=f"{_similar(conn, schema, name)}Create it in a migration, or run `backfills migrate` if it belongs "
            "to this package.",
        )
    keys = tuple(tuple(row[1]) for row in conn.execute(_KEYS, {"relation": relation}))
    return Table(database, schema, name, columns, keys)


def _similar(conn: psycopg.Connection, schema: str, name: str) -> str:
    """A hint that names similar tables, or an empty string."""
    hint = did_you_mean(f"{schema}.{name}", [row[0] for row in conn.execute(_TABLES)])
    return f"{hint} " if hint.startswith("Did") else ""
