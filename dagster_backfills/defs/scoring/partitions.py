"""The days that are scored. A day can be scored once it is over, so that all its visits are in."""

import os
from datetime import date, timedelta

import dagster as dg

FIRST_DAY = "2020-01-01"  # of the days that can be chosen; `SCORING_FIRST_DAY` sets another


def days_from(first_day: str) -> dg.DailyPartitionsDefinition:
    """Days in UTC from `first_day` to yesterday."""
    return dg.DailyPartitionsDefinition(start_date=first_day, timezone="UTC")


scoring_days = days_from(os.environ.get("SCORING_FIRST_DAY", "") or FIRST_DAY)


def newest_day(today: date) -> date:
    """The newest day that can be scored."""
    return today - timedelta(days=1)
