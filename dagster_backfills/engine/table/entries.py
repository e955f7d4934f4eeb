"""SQL for journal entries: a changed row's key, its previous version, and a hash of its new version.

Versions are text, which every type supports, in the format that `session` pins.
"""

from collections.abc import Sequence

from psycopg import sql

from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.engine.table.names import columns, ident, type_name

KEY, BEFORE, AFTER = "backfill key", "backfill before", "backfill after"
# One journal row holds many entries of a partition, up to about four megabytes (counting 64 bytes overhead per entry).
_WRITTEN = """
insert into backfill.journal (journal_id, partition, keys, befores, afters)
select %(journal_id)s::bigint, coalesce(l.key, w.label, ''), w.keys, w.befores, w.afters
from (
    select e.label, array_agg(e.key) as keys, array_agg(e.before) as befores, array_agg(e.after) as afters
    from (
        select r.*,
            sum(64 + octet_length(r.key) + coalesce(octet_length(r.before), 0)) over (rows unbounded preceding)
            / 4194304 as chunk
        from (
            {rows}
        ) as r (label, key, before, after)
    ) as e
    group by e.label, e.chunk
) as w
left join unnest(%(journal_labels)s::text[], %(journal_keys)s::text[]) as l (label, key) on l.label = w.label"""


def key_text(table: Table, alias: str) -> sql.Composed:
    """The key columns of a row as a text array."""
    return sql.SQL("array[{}]").format(
        sql.SQL(", ").join(sql.SQL("{}::text").format(ident(alias, name)) for name in table.identity)
    )


def same_key(table: Table, row: str, entry: str) -> sql.Composed:
    """Joins a table's row and an entry by key. The entry's key is cast, so that the table's index can be used."""
    return sql.SQL(" and ").join(
        sql.SQL("{} = {}[{}]::{}").format(
            ident(row, name), ident(entry, "key"), sql.SQL(f"{n}"), type_name(table.column(name).cast)
        )
        for n, name in enumerate(table.identity, 1)
    )


def content(table: Table, touched: str, alias: str) -> sql.Composed:
    """A hash of the row without the column that each write sets to now."""
    names = [column.name for column in table.columns if column.name != touched]
    return sql.SQL('hashtextextended(row({})::text collate "C", 0)').format(columns(alias, names))


def row_text(alias: str) -> sql.Composed:
    """The whole row as text that can be cast back to the table's row type."""
    return sql.SQL("({}.*)::text").format(ident(alias))


def entry(
    table: Table, touched: str, *, key: str = "t", before: sql.Composable | None = None, after: str = ""
) -> sql.Composed:
    """Columns of a RETURNING clause for the journal. key, after: aliases; without `after` the row was deleted."""
    return sql.SQL("{} as {}, {} as {}, {} as {}").format(
        key_text(table, key),
        ident(KEY),
        before or sql.SQL("null::text"),
        ident(BEFORE),
        content(table, touched, after) if after else sql.SQL("null::bigint"),
        ident(AFTER),
    )


def write_entries(relations: Sequence[str]) -> sql.Composed:
    """An INSERT into the journal of the entries that these relations return, each row with its partition's `label`."""
    rows = [
        sql.SQL("select label, {}::text, {}, {} from {}").format(
            ident(KEY), ident(BEFORE), ident(AFTER), sql.Identifier(relation)
        )
        for relation in relations
    ]
    return sql.SQL(_WRITTEN).format(rows=sql.SQL("\nunion all\n").join(rows))


def names(alias: str = "") -> sql.Composed:
    """The columns that `entry` returns."""
    return columns(alias, (KEY, BEFORE, AFTER))
