"""Composes data-modifying statements from common table expressions. They write the journal and return counts.

Not here: the expressions (`merge`, `restore`).
"""

from collections.abc import Sequence

from psycopg import sql

from dagster_backfills.engine.table.entries import write_entries

Parts = Sequence[tuple[str, sql.Composable]]

# If these were inlined, the planner would estimate their joins at one row and choose nested loops.
_MATERIALIZED = ("changed", "obsolete", "entries", "net", "compared")
# By name of a part that changes rows (and returns the `label` of each): the counter that its rows add to.
_COUNTED = {"updated": "0, 0, count(*), 0", "inserted": "0, count(*), 0, 0", "deleted": "0, 0, 0, count(*)"}


def common_tables(parts: Parts) -> sql.Composed:
    """Returns the WITH clause of these named parts."""
    tables = [
        sql.SQL("{} as {}(\n{}\n)").format(
            sql.Identifier(name), sql.SQL("materialized " if name in _MATERIALIZED else ""), body
        )
        for name, body in parts
    ]
    return sql.SQL("with {}\n").format(sql.SQL(",\n").join(tables))


def with_counts(
    parts: Parts, source_rows: sql.Composable | None = None, *, journaled: bool = True
) -> sql.Composed:
    """Returns the complete statement, which returns one row of counts per partition.

    source_rows: a SELECT that counts the source's rows, if some of them may be unchanged. The parts that change rows
    are executed in their order, which is also that of their journal entries.
    """
    changing = [name for name, _ in parts if name in _COUNTED]
    entries = [("journaled", write_entries(changing))] if journaled else []
    # The names are constants of this package.
    numbers: list[sql.Composable] = [
        sql.SQL(f"select label, {_COUNTED[name]} from {name} group by label")  # noqa: S608
        for name in changing
    ]
    return common_tables([*parts, *entries]) + sql.SQL(
        "select label, sum(source_rows)::bigint, sum(inserted)::bigint, sum(updated)::bigint, "
        "sum(deleted)::bigint, {bad_key}, {null_unit}\n"
        "from (\n{counted}\n) as n (label, source_rows, inserted, updated, deleted)\n"
        "group by label"
    ).format(
        bad_key=sql.SQL("(select key from bad_key)" if "bad_key" in dict(parts) else "null::text"),
        null_unit=sql.SQL("exists (select from null_unit)" if "null_unit" in dict(parts) else "false"),
        counted=sql.SQL("\nunion all\n").join([*([source_rows] if source_rows else []), *numbers]),
    )
