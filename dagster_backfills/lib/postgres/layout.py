"""How a Dagster partitions definition lies in a table: the one place where partition keys become SQL."""

from collections.abc import Mapping, Sequence

import dagster as dg

from dagster_backfills.lib.engine.model import Target
from dagster_backfills.lib.errors import UserError
from dagster_backfills.lib.postgres.address import Address, ByDimensions, ByValue, ByWindow, Whole
from dagster_backfills.lib.postgres.catalog import Table

_POINTS_IN_TIME = {"timestamp", "timestamptz"}


def address_of(
    target: Target, table: Table, partitions_def: dg.PartitionsDefinition | None, keys: Sequence[str]
) -> Address:
    """The address of an asset's partitions in its table.

    Raises UserError where the asset is partitioned and does not say by which column, or the other way round.
    """
    by = target.partition_by
    if by is None:
        if partitions_def is not None:
            raise UserError(
                f"Asset {target.asset} is partitioned, and its metadata does not say by which column.",
                hint="Give it the metadata entry `partition_expr`: the column, or a mapping of dimension to column.",
            )
        return Whole()
    if isinstance(by, Mapping):
        return _by_dimensions(target, table, by, keys)
    column = table.column(by)
    if isinstance(partitions_def, dg.TimeWindowPartitionsDefinition) and not _is_daily_date(
        partitions_def, column.base_type
    ):
        windows = {key: partitions_def.time_window_for_partition_key(key) for key in keys}
        return ByWindow(by, {key: (window.start, window.end) for key, window in windows.items()})
    return ByValue(by, column.type)


def _is_daily_date(partitions_def: dg.TimeWindowPartitionsDefinition, base_type: str) -> bool:
    """A day's key is the date itself; any other schedule, or a time of day, needs the window."""
    if base_type in _POINTS_IN_TIME:
        return False
    return base_type != "date" or isinstance(partitions_def, dg.DailyPartitionsDefinition)


def _by_dimensions(target: Target, table: Table, by: Mapping[str, str], keys: Sequence[str]) -> ByDimensions:
    types = {dimension: table.column(column).type for dimension, column in by.items()}
    for dimension, column in by.items():
        if table.column(column).base_type in _POINTS_IN_TIME:
            raise UserError(
                f"Asset {target.asset}: dimension {dimension!r} lies in {column!r}, a point in time.",
                hint="Give the table a date column for that dimension.",
            )
    parts = {}
    for key in keys:
        if not isinstance(key, dg.MultiPartitionKey) or set(key.keys_by_dimension) != set(by):
            raise UserError(
                f"Asset {target.asset}: partition {key!r} does not have the dimensions {', '.join(by)}.",
                hint="Let `partition_expr` name every dimension of the asset's partitions.",
            )
        parts[str(key)] = dict(key.keys_by_dimension)
    return ByDimensions(dict(by), types, parts)
