"""Dagster's definition of declared partitions."""

from datetime import date, timedelta

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
    first = _first_day(declared.calendar, getattr(declared, declared.calendar))
    return _CALENDARS[declared.calendar](start_date=first, timezone=declared.timezone)


def _first_day(calendar: str, first: str) -> str:
    """The start of the week or month that contains the day. Dagster would begin with the next one."""
    if calendar not in ("weekly", "monthly"):
        return first
    day = date.fromisoformat(first)
    return f"{day - timedelta(days=day.isoweekday() % 7) if calendar == 'weekly' else day.replace(day=1)}"
