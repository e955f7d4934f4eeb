"""How a Dagster partitions definition maps to a table: which column values belong to which partition key."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import dagster as dg
import psycopg
from psycopg import sql

from dagster_backfills.engine.model import PARTITION, Target
from dagster_backfills.engine.table.address import (
    Address,
    ByDimensions,
    ByQuery,
    ByValue,
    ByWindow,
    Whole,
    Windows,
)
from dagster_backfills.engine.table.catalog import Column, Table
from dagster_backfills.engine.table.names import type_name
from dagster_backfills.errors import UserError

_POINTS_IN_TIME = {"timestamp", "timestamptz"}
_TEXT = {"text", "varchar"}  # can hold any key unchanged
_TWINS = """
select array_agg(k order by k) from unnest(%(keys)s::text[]) as k group by k::{type} having count(*) > 1 limit 1
"""


def address_of(
    target: Target, table: Table, partitions_def: dg.PartitionsDefinition | None, keys: Sequence[str]
) -> Address:
    """The address of an asset's partitions in its table.

    Raises UserError if the asset's partitions definition and its metadata do not match.
    """
    by, windows = target.partition_by, windows_of(partitions_def, keys)
    if target.partition_in_query:
        return ByQuery(PARTITION, windows)
    if by is None:
        if partitions_def is not None:
            raise UserError(
                f"Asset {target.asset} is partitioned, but its metadata names no partition column.",
                hint="Set the metadata entry `partition_expr` to the column, or to a mapping of dimension to column. "
                "If the table has no such column, set `partition_in_query` and let the query return it.",
            )
        return Whole()
    if isinstance(by, Mapping):
        return _by_dimensions(target, table, by, partitions_def, keys)
    column = table.column(by)
    if isinstance(partitions_def, dg.MultiPartitionsDefinition):
        raise UserError(
            f"Asset {target.asset} has several partition dimensions, but its metadata names one column.",
            hint="Set `partition_expr` to a mapping of dimension to column.",
        )
    if isinstance(partitions_def, dg.TimeWindowPartitionsDefinition):
        if column.base_type in _POINTS_IN_TIME:
            return ByWindow(by, "timestamptz", windows)
        if column.base_type == "date":
            return ByWindow(by, "date", {key: _days(target.asset, partitions_def, key) for key in keys})
    return ByValue(by, column.cast, windows)


def windows_of(definition: dg.PartitionsDefinition | None, keys: Sequence[str]) -> Windows:
    """Start and end of each of these time partitions; empty for other partitions."""
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return {}
    windows = {key: definition.time_window_for_partition_key(key) for key in keys}
    return {key: (window.start, window.end) for key, window in windows.items()}


def _days(asset: str, definition: dg.TimeWindowPartitionsDefinition, key: str) -> tuple[datetime, datetime]:
    """A time window in whole days. Raises UserError for a window shorter than a day, which dates can't represent."""
    start, end = windows_of(definition, [key])[key]
    # Compare local times: on the day that daylight saving time starts, they still differ by 24 hours.
    if end.replace(tzinfo=None) - start.replace(tzinfo=None) < timedelta(hours=23):
        raise UserError(
            f"Asset {asset}: partition {key!r} is shorter than a day, but its column is a date.",
            hint="Use a timestamptz column (with one dimension), or a text column that holds the key.",
        )
    return start, end


def _by_dimensions(
    target: Target,
    table: Table,
    by: Mapping[str, str],
    partitions_def: dg.PartitionsDefinition | None,
    keys: Sequence[str],
) -> ByDimensions:
    columns = {dimension: table.column(column) for dimension, column in by.items()}
    for dimension, column in columns.items():
        if column.base_type in _POINTS_IN_TIME:
            raise UserError(
                f"Asset {target.asset}: the column {column.name!r} of dimension {dimension!r} is {column.type}.",
                hint="Use a date column (the window's first day) or a text column (the key) for the dimension.",
            )
    definitions = {}
    if isinstance(partitions_def, dg.MultiPartitionsDefinition):
        definitions = {d.name: d.partitions_def for d in partitions_def.partitions_defs}
    parts: dict[str, dict[str, str]] = {}
    for key in keys:
        if not isinstance(key, dg.MultiPartitionKey) or set(key.keys_by_dimension) != set(by):
            raise UserError(
                f"Asset {target.asset}: partition {key!r} does not have the dimensions {', '.join(by)}.",
                hint="Map every dimension of the asset's partitions to a column in `partition_expr`.",
            )
        parts[str(key)] = {
            d: _value(target.asset, columns[d], definitions.get(d), part)
            for d, part in key.keys_by_dimension.items()
        }
    return ByDimensions(dict(by), {d: column.cast for d, column in columns.items()}, parts)


def _value(asset: str, column: Column, definition: dg.PartitionsDefinition | None, part: str) -> str:
    """The value in a dimension's column: the key, or the first day of a time window if it is a date column."""
    if isinstance(definition, dg.TimeWindowPartitionsDefinition) and column.base_type == "date":
        return _days(asset, definition, part)[0].date().isoformat()
    return part


def refuse_twins(
    conn: psycopg.Connection,
    target: Target,
    table: Table,
    partitions_def: dg.PartitionsDefinition | None,
    instance: dg.DagsterInstance,
) -> None:
    """Raise UserError if two partition keys give the same column value, such as '1' and '01' in a number column.

    Each would overwrite the other's rows. Time windows are not checked here: `address_of` rejects such windows.
    """
    by = target.partition_by
    definitions: dict[str | None, dg.PartitionsDefinition | None] = {None: partitions_def}
    if isinstance(partitions_def, dg.MultiPartitionsDefinition):
        definitions = {d.name: d.partitions_def for d in partitions_def.partitions_defs}
    for dimension, definition in definitions.items():
        name = by[dimension] if isinstance(by, Mapping) and dimension is not None else by
        if definition is None or name is None or isinstance(definition, dg.TimeWindowPartitionsDefinition):
            continue
        column = table.column(str(name))
        if column.base_type in _TEXT:
            continue
        keys = definition.get_partition_keys(dynamic_partitions_store=instance)
        castable = _castable(conn, column, list(keys))
        statement = sql.SQL(_TWINS).format(type=type_name(column.cast))
        for (twins,) in conn.execute(statement, {"keys": castable}):
            raise UserError(
                f"Asset {target.asset}: partitions {twins[0]!r} and {twins[1]!r} have the same value in column "
                f"{column.name!r} ({column.type}).",
                hint="Use a text column for the partition, or remove one of the two.",
            )


def _castable(conn: psycopg.Connection, column: Column, keys: list[str]) -> list[str]:
    """The keys that the column can hold. A run of any other key fails with its own error."""
    statement = sql.SQL("select count(k::{}) from unnest(%s::text[]) as k").format(type_name(column.cast))
    try:
        with conn.transaction():
            conn.execute(statement, [keys])
            return keys
    except psycopg.DataError:
        middle = len(keys) // 2
        if not middle:
            return []
        return _castable(conn, column, keys[:middle]) + _castable(conn, column, keys[middle:])
