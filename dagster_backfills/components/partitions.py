"""Declared partitions as Dagster has them."""

import dagster as dg

from dagster_backfills.engine.declared.declaration import Partitions

_CALENDARS = {
    "hourly": dg.HourlyPartitionsDefinition,
    "daily": dg.DailyPartitionsDefinition,
    "weekly": dg.WeeklyPartitionsDefinition,
    "monthly": dg.MonthlyPartitionsDefinition,
}


def definition_of(declared: Partitions, name: str) -> dg.PartitionsDefinition:
    """Their definition. name: what a set of rows is called that has no name of its own."""
    if declared.keys is not None:
        return dg.DynamicPartitionsDefinition(name=declared.dynamic or name)
    if declared.static is not None:
        return dg.StaticPartitionsDefinition(declared.static)
    assert declared.calendar is not None
    first = getattr(declared, declared.calendar)
    return _CALENDARS[declared.calendar](start_date=first, timezone=declared.timezone)
