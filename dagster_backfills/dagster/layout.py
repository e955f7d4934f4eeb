"""How a Dagster partitions definition lies in a table: the one place that says what a key is in its column."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import dagster as dg
import psycopg
from psycopg import sql

from dagster_backfills.engine.model import PARTITION, Target
from dagster_backfills.engine.table.address import Address, ByDimensions, ByQuery, ByValue, ByWindow, Whole
from dagster_backfills.engine.table.catalog import Column, Table
from dagster_backfills.engine.table.names import type_name
from dagster_backfills.errors import UserError

_POINTS_IN_TIME = {"timestamp", "timestamptz"}
_TEXT = {"text", "varchar"}  # holds every key as it is
_TWINS = """
select array_agg(k order by k) from unnest(%(keys)s::text[]) as k group by k::{type} having count(*) > 1 limit 1
"""


def address_of(
    target: Target, table: Table, partitions_def: dg.PartitionsDefinition | None, keys: Sequence[str]
) -> Address:
    """The address of an asset's partitions in its table.

    Raises UserError where the asset is partitioned and does not say by which column, or the other way round.
    """
    by = target.partition_by
    if target.partition_in_query:
        if isinstance(partitions_def, dg.TimeWindowPartitionsDefinition):
            return ByQuery(PARTITION, {key: _window(partitions_def, key) for key in keys})
        return ByQuery(PARTITION)
    if by is None:
        if partitions_def is not None:
            raise UserError(
                f"Asset {target.asset} is partitioned, and its metadata does not say by which column.",
                hint="Give it the metadata entry `partition_expr`: the column, or a mapping of dimension to column; or "
                "`partition_in_query`, where the table has none and the query gives it.",
            )
        return Whole()
    if isinstance(by, Mapping):
        return _by_dimensions(target, table, by, partitions_def, keys)
    column = table.column(by)
    if isinstance(partitions_def, dg.MultiPartitionsDefinition):
        raise UserError(
            f"Asset {target.asset} has several dimensions of partitions, and its metadata names one column.",
            hint="Let `partition_expr` be a mapping of dimension to column.",
        )
    if isinstance(partitions_def, dg.TimeWindowPartitionsDefinition):
        if column.base_type in _POINTS_IN_TIME:
            return ByWindow(by, "timestamptz", {key: _window(partitions_def, key) for key in keys})
        if column.base_type == "date":
            return ByWindow(by, "date", {key: _days(target.asset, partitions_def, key) for key in keys})
    return ByValue(by, column.cast)


def _window(definition: dg.TimeWindowPartitionsDefinition, key: str) -> tuple[datetime, datetime]:
    window = definition.time_window_for_partition_key(key)
    return window.start, window.end


def _days(asset: str, definition: dg.TimeWindowPartitionsDefinition, key: str) -> tuple[datetime, datetime]:
    """A window of whole days. Raises UserError for a shorter one: the day is all that a date column can hold."""
    start, end = _window(definition, key)
    # By the clock on the wall, so that the day on which it is set forward has its 24 hours too.
    if end.replace(tzinfo=None) - start.replace(tzinfo=None) < timedelta(hours=23):
        raise UserError(
            f"Asset {asset}: partition {key!r} is shorter than a day, and its column is a date.",
            hint="Give the partition a timestamptz column (one dimension), or a text column that holds its key.",
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
                f"Asset {target.asset}: dimension {dimension!r} lies in {column.name!r}, a point in time.",
                hint="Give that dimension a date column (its window's first day) or a text column (its key).",
            )
    definitions = {}
    if isinstance(partitions_def, dg.MultiPartitionsDefinition):
        definitions = {d.name: d.partitions_def for d in partitions_def.partitions_defs}
    parts: dict[str, dict[str, str]] = {}
    for key in keys:
        if not isinstance(key, dg.MultiPartitionKey) or set(key.keys_by_dimension) != set(by):
            raise UserError(
                f"Asset {target.asset}: partition {key!r} does not have the dimensions {', '.join(by)}.",
                hint="Let `partition_expr` name every dimension of the asset's partitions.",
            )
        parts[str(key)] = {
            d: _value(target.asset, columns[d], definitions.get(d), part)
            for d, part in key.keys_by_dimension.items()
        }
    return ByDimensions(dict(by), {d: column.cast for d, column in columns.items()}, parts)


def _value(asset: str, column: Column, definition: dg.PartitionsDefinition | None, part: str) -> str:
    """What stands in a dimension's column: the key, or in a date column a time window's first day."""
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
    """Raise UserError where two of the definition's keys are one value in their column ('1' and '01' in a number).

    Each would overwrite the other's rows. Windows of time are not asked about: `address_of` refuses theirs.
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
                f"Asset {target.asset}: partitions {twins[0]!r} and {twins[1]!r} are the same in column "
                f"{column.name!r} ({column.type}).",
                hint="Give the table a text column for the partition, or remove one of the two.",
            )


def _castable(conn: psycopg.Connection, column: Column, keys: list[str]) -> list[str]:
    """The keys that the column can hold. Of the others each run says itself what is wrong with them."""
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
