"""Statements of several parts that change rows: what they changed into the journal, and counts, one row a partition.

Not here: the parts (`merge_pieces`, `restore`).
"""

from collections.abc import Sequence

from psycopg import sql

from dagster_backfills.engine.table.entries import write_entries

Parts = Sequence[tuple[str, sql.Composable]]

# Flattened into the statements that use them, their joins are estimated at one row, and loop over each other.
_MATERIALIZED = ("source", "changed", "leaving", "entries", "net", "looked")
# By the name of the part that changes rows, and returns a `label` of each: what its rows count as.
_COUNTED = {"updated": "0, 0, count(*), 0", "inserted": "0, count(*), 0, 0", "gone": "0, 0, 0, count(*)"}


def common_tables(parts: Parts) -> sql.Composed:
    """A statement's beginning: the parts under their names."""
    tables = [
        sql.SQL("{} as {}(\n{}\n)").format(
            sql.Identifier(name), sql.SQL("materialized " if name in _MATERIALIZED else ""), body
        )
        for name, body in parts
    ]
    return sql.SQL("with {}\n").format(sql.SQL(",\n").join(tables))


def with_counts(parts: Parts, given: sql.Composable | None = None, *, journaled: bool = True) -> sql.Composed:
    """The statement of these parts. `given` counts the rows that the source gave, where some may be as they were.

    What changes rows is run in the order in which it stands among the parts.
    """
    changing = [name for name, _ in parts if name in _COUNTED]
    entries = [("journaled", write_entries(sorted(changing, key=list(_COUNTED).index)))] if journaled else []
    # Every part is a piece of this module's own.
    numbers: list[sql.Composable] = [
        sql.SQL(f"select label, {_COUNTED[name]} from {name} group by label")  # noqa: S608
        for name in changing
    ]
    return common_tables([*parts, *entries]) + sql.SQL(
        "select label, sum(given)::bigint, sum(inserted)::bigint, sum(updated)::bigint, "
        "sum(deleted)::bigint, {bad_key}\nfrom (\n{counted}\n) as n (label, given, inserted, updated, deleted)\n"
        "group by label"
    ).format(
        bad_key=sql.SQL("(select key from bad_key)" if "bad_key" in dict(parts) else "null::text"),
        counted=sql.SQL("\nunion all\n").join([*([given] if given else []), *numbers]),
    )
