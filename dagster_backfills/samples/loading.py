"""Load sample rows into tables."""

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql


def load_rows(
    conn: psycopg.Connection[Any],
    table: sql.Identifier,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
) -> None:
    """COPY rows into a table. Their values are in the order of `columns`."""
    into = sql.SQL("copy {} ({}) from stdin").format(table, sql.SQL(", ").join(map(sql.Identifier, columns)))
    with conn.cursor() as cursor, cursor.copy(into) as copy:
        for row in rows:
            copy.write_row(row)


def has_rows(conn: psycopg.Connection[Any], *tables: sql.Identifier) -> bool:
    """Whether any of the tables has rows."""
    return any(
        conn.execute(sql.SQL("select from {} limit 1").format(table)).fetchone() is not None
        for table in tables
    )
