"""A code location with only the progress domain, without sensors and schedules."""

import dagster as dg

from dagster_backfills.components.assets import build_assets
from dagster_backfills.components.postgres_backfill import definitions_of
from dagster_backfills.dagster.io_manager import PostgresIOManager
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.progress.declared import PROGRESS


@dg.definitions
def defs() -> dg.Definitions:
    postgres = PostgresResource()
    return dg.Definitions(
        assets=[build_assets(PROGRESS)],
        sensors=list(definitions_of(PROGRESS).sensors or [])[:1],
        resources={"postgres": postgres, "io_manager": PostgresIOManager(postgres=postgres)},
        executor=dg.in_process_executor,
    )
