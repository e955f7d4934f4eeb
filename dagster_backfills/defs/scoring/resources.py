"""The resources of this domain: its settings, from the environment, and the writer of its histories."""

import dagster as dg

from dagster_backfills.defs.scoring.settings import settings_from
from dagster_backfills.defs.scoring.writer import DayWriter
from dagster_backfills.lib.postgres.resource import PostgresResource


@dg.definitions
def scoring_resources() -> dg.Definitions:
    settings = settings_from()
    return dg.Definitions(
        resources={
            "scoring_settings": settings,
            "scoring_writer": DayWriter(postgres=PostgresResource(), scoring_settings=settings),
        }
    )
