"""What a statement that changes rows writes of them into the journal: their key, and what stood and stands there.

As text and hash of text, which every type has, in the form that a batch's session is pinned to (`session`).
"""

from collections.abc import Sequence

from psycopg import sql

from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.engine.table.names import columns, ident, type_name

KEY, BEFORE, AFTER = "backfill key", "backfill before", "backfill after"


def key_text(table: Table, alias: str) -> sql.Composed:
    """The columns that tell a row apart, as an array of text."""
    return sql.SQL("array[{}]").format(
        sql.SQL(", ").join(sql.SQL("{}::text").format(ident(alias, name)) for name in table.identity)
    )


def same_key(table: Table, row: str, entry: str) -> sql.Composed:
    """Whether a row is the one that an entry is of. The entry's side is cast, so that the key's index serves."""
    return sql.SQL(" and ").join(
        sql.SQL("{} = {}[{}]::{}").format(
            ident(row, name), ident(entry, "key"), sql.SQL(f"{n}"), type_name(table.column(name).cast)
        )
        for n, name in enumerate(table.identity, 1)
    )


def content(table: Table, touched: str, alias: str) -> sql.Composed:
    """A hash of the row, but for the column that each write sets to now."""
    names = [column.name for column in table.columns if column.name != touched]
    return sql.SQL('hashtextextended(row({})::text collate "C", 0)').format(columns(alias, names))


def standing(alias: str) -> sql.Composed:
    """The whole row as text that its own type reads again."""
    return sql.SQL("({}.*)::text").format(ident(alias))


def entry(
    table: Table, touched: str, *, key: str = "t", before: sql.Composable | None = None, after: str = ""
) -> sql.Composed:
    """What a statement returns of a row for the journal. `key` and `after` are aliases; without `after` it is gone."""
    return sql.SQL("{} as {}, {} as {}, {} as {}").format(
        key_text(table, key),
        ident(KEY),
        before or sql.SQL("null::text"),
        ident(BEFORE),
        content(table, touched, after) if after else sql.SQL("null::bigint"),
        ident(AFTER),
    )


def write_entries(relations: Sequence[str]) -> sql.Composed:
    """The entries of what these relations return, each with its `label`, under the partition that this stands for."""
    rows = [
        sql.SQL("select label, {} from {}").format(names(), sql.Identifier(relation))
        for relation in relations
    ]
    return sql.SQL(
        "insert into backfill.journal (journal_id, partition, key, before, after)\n"
        "select %(journal_id)s::bigint, coalesce(l.key, w.label, ''), w.{key}, w.{before}, w.{after}\n"
        "from ({rows}) as w\n"
        "left join unnest(%(journal_labels)s::text[], %(journal_keys)s::text[]) as l (label, key) on l.label = w.label"
    ).format(
        key=ident(KEY), before=ident(BEFORE), after=ident(AFTER), rows=sql.SQL("\nunion all\n").join(rows)
    )


def names(alias: str = "") -> sql.Composed:
    """The columns that `entry` has made."""
    return columns(alias, (KEY, BEFORE, AFTER))
