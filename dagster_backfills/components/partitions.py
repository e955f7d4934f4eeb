"""Dagster's definition of declared partitions."""

import dagster as dg

from dagster_backfills.engine.declared.declaration import Partitions

_CALENDARS = {
    "hourly": dg.HourlyPartitionsDefinition,
    "daily": dg.DailyPartitionsDefinition,
    "weekly": dg.WeeklyPartitionsDefinition,
    "monthly": dg.MonthlyPartitionsDefinition,
}


def definition_of(declared: Partitions, name: str) -> dg.PartitionsDefinition:
    """The partitions definition. name: the default name of dynamic partitions."""
    if declared.keys is not None:
        return dg.DynamicPartitionsDefinition(name=declared.dynamic or name)
    if declared.static is not None:
        return dg.StaticPartitionsDefinition(declared.static)
    assert declared.calendar is not None
    first = getattr(declared, declared.calendar)
    return _CALENDARS[declared.calendar](start_date=first, timezone=declared.timezone)
