"""How a Dagster partitions definition lies in a table: the one place where partition keys become SQL."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import dagster as dg

from dagster_backfills.lib.engine.model import PARTITION, Target
from dagster_backfills.lib.errors import UserError
from dagster_backfills.lib.postgres.address import Address, ByDimensions, ByQuery, ByValue, ByWindow, Whole
from dagster_backfills.lib.postgres.catalog import Table

_POINTS_IN_TIME = {"timestamp", "timestamptz"}


def address_of(
    target: Target, table: Table, partitions_def: dg.PartitionsDefinition | None, keys: Sequence[str]
) -> Address:
    """The address of an asset's partitions in its table.

    Raises UserError where the asset is partitioned and does not say by which column, or the other way round.
    """
    by = target.partition_by
    if target.partition_in_query:
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
            return ByWindow(by, "date", {key: _days(target, partitions_def, key) for key in keys})
    return ByValue(by, column.cast)


def _window(definition: dg.TimeWindowPartitionsDefinition, key: str) -> tuple[datetime, datetime]:
    window = definition.time_window_for_partition_key(key)
    return window.start, window.end


def _days(
    target: Target, definition: dg.TimeWindowPartitionsDefinition, key: str
) -> tuple[datetime, datetime]:
    """A window of whole days."""
    start, end = _window(definition, key)
    if start.date() == end.date():
        raise UserError(
            f"Asset {target.asset}: partition {key!r} is shorter than a day, and its column is a date.",
            hint="Give the table a timestamptz column for the partition.",
        )
    return start, end


def _by_dimensions(
    target: Target,
    table: Table,
    by: Mapping[str, str],
    partitions_def: dg.PartitionsDefinition | None,
    keys: Sequence[str],
) -> ByDimensions:
    for dimension, column in by.items():
        if table.column(column).base_type in _POINTS_IN_TIME:
            raise UserError(
                f"Asset {target.asset}: dimension {dimension!r} lies in {column!r}, a point in time.",
                hint="Give the table a date column for that dimension: a window's first day.",
            )
    definitions = {}
    if isinstance(partitions_def, dg.MultiPartitionsDefinition):
        definitions = {d.name: d.partitions_def for d in partitions_def.partitions_defs}
    parts = {}
    for key in keys:
        if not isinstance(key, dg.MultiPartitionKey) or set(key.keys_by_dimension) != set(by):
            raise UserError(
                f"Asset {target.asset}: partition {key!r} does not have the dimensions {', '.join(by)}.",
                hint="Let `partition_expr` name every dimension of the asset's partitions.",
            )
        parts[str(key)] = {d: _value(definitions.get(d), part) for d, part in key.keys_by_dimension.items()}
    return ByDimensions(dict(by), {d: table.column(c).cast for d, c in by.items()}, parts)


def _value(definition: dg.PartitionsDefinition | None, part: str) -> str:
    """What stands in a dimension's column: the key, or of a time window its first day."""
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return definition.time_window_for_partition_key(part).start.date().isoformat()
    return part
