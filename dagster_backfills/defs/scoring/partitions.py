"""The days that are scored. A day can be scored once it is over, so that all its visits are in."""

from datetime import date, timedelta

import dagster as dg

from dagster_backfills.domains.scoring.settings import setting_at_load

scoring_days = dg.DailyPartitionsDefinition(
    start_date=setting_at_load("first_day").isoformat(), timezone="UTC"
)


def newest_day(today: date) -> date:
    """The newest day that can be scored."""
    return today - timedelta(days=1)
