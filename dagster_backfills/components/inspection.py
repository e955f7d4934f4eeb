"""Checks of a declaration against its database: tables, columns, keys and statements. Nothing is written.

Each mistake is reported with its file and line. Runs do this before they write, and `backfills check` on request.
"""

from dataclasses import replace
from typing import Any

import psycopg

from dagster_backfills.components.backfill import Backfill
from dagster_backfills.dagster.layout import address_of
from dagster_backfills.engine.declared.declaration import TableDeclaration
from dagster_backfills.engine.declared.validation import named_statements
from dagster_backfills.engine.declared.yaml_mistakes import Places
from dagster_backfills.engine.described import columns_of
from dagster_backfills.engine.model import WHOLE, Compute, Query
from dagster_backfills.engine.prepared import PreparedWrite
from dagster_backfills.engine.table.catalog import Table, read_table
from dagster_backfills.engine.watched import WatchedTable
from dagster_backfills.errors import UserError, located


def inspect(backfill: Backfill, conn: psycopg.Connection[Any]) -> None:
    """Check everything that the declaration refers to. Raises UserError for the first mistake."""
    declared, places = backfill.declared, Places(backfill.folder / "defs.yaml")
    if conn.execute("select to_regclass('backfill.source_positions')").fetchone() == (None,):
        url = f"DATABASE_URL=${declared.database} " if declared.database else ""
        raise UserError(
            f"Database {conn.info.dbname!r} does not have the engine's tables.",
            f"Run: {url}backfills migrate",
        )
    for number, table in enumerate(declared.tables):
        _inspect_rows(backfill, conn, table, _inspect_table(conn, table, places, number))
    for name, path, _ in named_statements(declared):
        statement = backfill.statements[name]
        if path == ("status",):
            statement = replace(statement, sql=f"select q.partition from ({statement.sql}\n) as q")  # noqa: S608
        if path[0] != "tables":
            statement.check(conn, assets=backfill.assets, seconds=0)
    for source, watched in zip(declared.stale_when, backfill.watched(), strict=True):
        with located(places.of("stale_when", source)):
            watched.check(conn)
            _require_time(backfill, conn, watched)
            if declared.stale_by == "polling":
                watched.require_rows(conn)
    conn.rollback()


def _require_time(backfill: Backfill, conn: psycopg.Connection[Any], watched: WatchedTable) -> None:
    """Raise UserError if a calendar's keys are derived from a column that is no time: each row's trigger would fail."""
    cut = backfill.declared.partitions
    if cut is None or cut.calendar is None or watched.by in backfill.statements:
        return
    column = read_table(conn, watched.schema, watched.name).column(watched.by)
    if column.base_type not in ("date", "timestamp", "timestamptz"):
        raise UserError(
            f"stale_when {watched.source}: column {watched.by!r} is {column.type}, not a date or timestamp.",
            hint="Name a date or timestamp column, or a statement that returns the keys of `changed_rows`.",
        )


def _inspect_table(
    conn: psycopg.Connection[Any], table: TableDeclaration, places: Places, number: int
) -> Table:
    with located(places.of("tables", number, "table")):
        actual = read_table(conn, *table.target(partitioned=False).schema_and_table)
    for attribute, names in (
        ("partition_column", [table.partition_column]), ("unit", [table.unit]), ("key", table.key or [])
    ):  # fmt: skip
        with located(places.of("tables", number, attribute)):
            for name in filter(None, names):
                actual.column(name)
    with located(places.of("tables", number, "key")):
        actual.key_among((), table.key)
    return actual


def _inspect_rows(
    backfill: Backfill, conn: psycopg.Connection[Any], table: TableDeclaration, actual: Table
) -> None:
    write = backfill.write(table, {"backfill_id": ""})
    with located(backfill.statements[table.statement].place):
        address = address_of(write.target, actual, backfill.partitions_def, [])
        if isinstance(write.source, Compute):
            reads = Query(backfill.statements[table.statement].sql, {"backfill_id": ""})
            columns_of(conn, reads, table.asset, address)
        else:
            PreparedWrite.open(conn, replace(write, address=address), 0, [WHOLE], table=actual)
    if write.units is not None and table.units_statement is not None:
        units = Query(f"select q.partition, q.unit from ({write.units.sql}\n) as q", write.units.params)  # noqa: S608
        with located(backfill.statements[table.units_statement].place):
            columns_of(conn, units, table.asset, address)
