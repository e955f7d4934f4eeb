"""Mistakes in a declaration that only its database can see: tables, columns, keys, statements. Nothing is written.

Each is named with its file and line. A run looks before it writes, and `backfills check` whenever it is asked.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg

from dagster_backfills.components.declaration import TableDeclaration
from dagster_backfills.components.validation import named_statements
from dagster_backfills.dagster.layout import address_of
from dagster_backfills.engine.model import WHOLE, Compute, Query
from dagster_backfills.engine.prepared import PreparedWrite
from dagster_backfills.engine.table import catalog
from dagster_backfills.errors import UserError
from dagster_backfills.yaml_mistakes import Places

if TYPE_CHECKING:
    from dagster_backfills.components.building import Backfill


def inspect(backfill: "Backfill", conn: psycopg.Connection[Any]) -> None:
    """Look at everything that the declaration names. Raises UserError for the first mistake."""
    if conn.execute("select to_regclass('backfill.source_positions')").fetchone() == (None,):
        variable = backfill.declared.database
        raise UserError(
            f"Database {conn.info.dbname!r} lacks the engine's tables.",
            hint=f"Run: {f'DATABASE_URL=${variable} ' if variable else ''}backfills migrate",
        )
    places = Places(backfill.folder / "defs.yaml")
    for number, table in enumerate(backfill.declared.tables):
        _rows(backfill, conn, table, _columns(conn, table, places, number))
    _others(backfill, conn)
    for watched in backfill.watched():
        with _at(places.of("stale_when", _as_written(backfill, watched.source))):
            watched.check(conn)
    conn.rollback()


def _columns(
    conn: psycopg.Connection[Any], table: TableDeclaration, places: Places, number: int
) -> catalog.Table:
    with _at(places.of("tables", number, "table")):
        there = catalog.read_table(conn, *table.target(partitioned=False).schema_and_table)
    for attribute in ("partition_column", "unit"):
        name = getattr(table, attribute)
        if name is not None:
            with _at(places.of("tables", number, attribute)):
                there.column(name)
    with _at(places.of("tables", number, "key")):
        for name in table.key or ():
            there.column(name)
        there.key_among((), table.key)
    return there


def _rows(
    backfill: "Backfill", conn: psycopg.Connection[Any], table: TableDeclaration, there: catalog.Table
) -> None:
    write = backfill.write(table, {"backfill_id": ""})
    with _at(backfill.statements[table.statement].place):
        address = address_of(write.target, there, backfill.partitions_def, [])
        if not isinstance(write.source, Compute):
            PreparedWrite.open(conn, write, address, 0, [WHOLE], table=there)
    if write.units is not None and table.units_statement is not None:
        units = Query(f"select q.partition, q.unit from ({write.units.sql}\n) as q", write.units.params)  # noqa: S608
        with _at(backfill.statements[table.units_statement].place):
            _explain(conn, units.sql, {"unit_keys": None, "run_id": "", **address.binds([]), **units.params})


def _others(backfill: "Backfill", conn: psycopg.Connection[Any]) -> None:
    binds = {"assets": backfill.assets, "seconds": 0}
    for name, path, _ in named_statements(backfill.declared):
        if path[0] != "tables":
            with _at(backfill.statements[name].place):
                _explain(conn, backfill.statements[name].sql, binds)


def _explain(conn: psycopg.Connection[Any], sql: str, binds: dict[str, Any]) -> None:
    try:
        conn.execute(f"explain {sql}", binds)
    except psycopg.ProgrammingError as error:
        raise UserError(f"the statement is not valid: {error.diag.message_primary}.") from error


@contextmanager
def _at(where: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error.message}", error.hint) from error


def _as_written(backfill: "Backfill", source: str) -> str:
    names: Sequence[str] = list(backfill.declared.stale_when)
    return next((name for name in names if name.replace('"', "") == source), source)


def refuse_mistakes(backfill: "Backfill", conn: psycopg.Connection[Any]) -> None:
    """The same in a run: a Failure that no retry follows, before anything is written."""
    try:
        inspect(backfill, conn)
    except UserError as error:
        conn.rollback()
        raise dg.Failure(str(error), allow_retries=False) from error
