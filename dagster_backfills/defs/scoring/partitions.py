"""The days that are scored. A day can be scored once it is over, so that all its visits are in."""

import dagster as dg

from dagster_backfills.domains.scoring.settings import setting_at_load

scoring_days = dg.DailyPartitionsDefinition(
    start_date=setting_at_load("first_day").isoformat(), timezone="UTC"
)
