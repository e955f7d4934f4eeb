"""Daily partitions of the scoring assets. A day can be scored once it has ended, when it has all its visits."""

import dagster as dg

from dagster_backfills.domains.scoring.settings import setting_at_load

scoring_days = dg.DailyPartitionsDefinition(
    start_date=setting_at_load("first_day").isoformat(), timezone="UTC"
)
