"""Shared by all domains: the database, the I/O manager and the automation sensor."""

import dagster as dg

from dagster_backfills.dagster.io_manager import VARIABLES, PostgresIOManager
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.environment import usable_from_environment


@dg.definitions
def resources() -> dg.Definitions:
    postgres = PostgresResource()
    automation = dg.AutomationConditionSensorDefinition(
        "automation",
        target=dg.AssetSelection.all(include_sources=True) | dg.AssetSelection.all_asset_checks(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Runs the periodic checks, and everything else that has an automation condition.",
    )
    return dg.Definitions(
        sensors=[automation],
        resources={
            "postgres": postgres,
            "io_manager": PostgresIOManager(
                postgres=postgres, **usable_from_environment(EngineSettings, VARIABLES)
            ),
        },
    )
