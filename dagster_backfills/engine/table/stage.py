"""The temporary table that frames pass through: a merge casts its rows and writes them. Not here: the COPY (`frames`).

The stage holds text, so that a value which its column can't take fails in the merge, where the batch can be
bisected down to its row, and not in the COPY, where all would fail. Only the columns that rows are found by
(partition and unit) have their own types, for they must compare as they will be stored.
"""

from collections.abc import Sequence

import psycopg
from psycopg import sql

from dagster_backfills.engine.table.names import columns, ident


def drop_stage(conn: psycopg.Connection, name: str) -> None:
    """Give back what the stage holds; the connection lives on."""
    conn.execute(sql.SQL("drop table if exists pg_temp.{}").format(ident(name)), {})


def staged(name: str, names: Sequence[str]) -> sql.Composable:
    """A SELECT of everything that was staged, with the alias `s`."""
    return sql.SQL("select {} from pg_temp.{} as s").format(columns("s", list(names)), ident(name))
