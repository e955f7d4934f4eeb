"""Finds a query's result columns without running it. Not here: the table that they are written to (`prepared`)."""

import re

import psycopg
from psycopg import sql

from dagster_backfills.engine.model import PARTITION, Query
from dagster_backfills.engine.table.address import Address
from dagster_backfills.engine.table.slice import Slice
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.connection import is_of_row_security
from dagster_backfills.postgres.statements import NOT_VALID

_LINE = re.compile(r"^LINE \d+: +(.+?) *$", re.M)


def columns_of(conn: psycopg.Connection, query: Query, asset: str, address: Address) -> list[str]:
    """Returns the names of a query's result columns, without `partition` if the table does not store it.

    The query is planned and run with `limit 0`. Raises UserError if it is invalid or the role may not run it.
    """
    probe = sql.SQL("select * from (\n") + sql.SQL(query.sql) + sql.SQL("\n) as q limit 0")
    try:
        cursor = conn.execute(probe, {**Slice([]).binds(address), **query.params})
    except psycopg.errors.InsufficientPrivilege as error:
        if is_of_row_security(error):
            raise  # the connection's owner turns this into an error with a hint
        raise UserError(
            f"The role may not run the query of asset {asset}: {error.diag.message_primary}.",
            hint="Connect as a role that may read its tables.",
        ) from error
    except (*NOT_VALID, KeyError) as error:
        raise UserError(
            f"The query of asset {asset} is not valid: {_reason(error)}.",
            hint="It can bind :partition_keys, :unit_keys, :window_start, :window_end, :run_id and its own params.",
        ) from error
    names = [column.name for column in cursor.description or ()]
    if not address.stored:
        if PARTITION not in names:
            raise UserError(
                f"The query of asset {asset} returns no column {PARTITION!r}; it returns {', '.join(names)}.",
                hint="The table does not store the partition: select the partition key as `partition`.",
            )
        names.remove(PARTITION)
    return names


def _reason(error: Exception) -> str:
    """The database's message, with the line of the statement that it points at."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    at = _LINE.search(str(error))
    return f"{primary or error}, in `{at[1]}`" if at else f"{primary or error}"
