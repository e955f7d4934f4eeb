"""Statements of several parts that end in their counts, one row a partition. Not here: the parts (`merge`)."""

from collections.abc import Sequence

from psycopg import sql

# Flattened into the statements that use them, their joins are estimated at one row, and loop over each other.
_MATERIALIZED = ("source", "changed", "leaving", "entries", "net", "looked")


def with_counts(
    parts: Sequence[tuple[str, sql.Composed]], numbers: Sequence[sql.Composable], *, bad_key: bool = False
) -> sql.Composed:
    """Common table expressions, and their counts added up to one row a partition."""
    ctes = [
        sql.SQL("{} as {}(\n{}\n)").format(
            sql.Identifier(name),
            sql.SQL("materialized " if name in _MATERIALIZED else ""),
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
        counted=sql.SQL("\nunion all\n").join(numbers),
    )


def counted(
    relation: str, *, given: str = "0", inserted: str = "0", updated: str = "0", deleted: str = "0"
) -> sql.SQL:
    # Every part is a piece of this module's own.
    return sql.SQL(f"select label, {given}, {inserted}, {updated}, {deleted} from {relation} group by label")  # noqa: S608
