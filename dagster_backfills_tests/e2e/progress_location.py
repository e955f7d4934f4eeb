"""The progress domain alone, without what starts runs by itself: what runs is what someone launched."""

import dagster as dg

from dagster_backfills.dagster.io_manager import PostgresIOManager
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.progress.declared import PROGRESS


@dg.definitions
def defs() -> dg.Definitions:
    postgres = PostgresResource()
    return dg.Definitions(
        assets=[PROGRESS.assets_def],
        sensors=PROGRESS.sensors[:1],
        resources={"postgres": postgres, "io_manager": PostgresIOManager(postgres=postgres)},
        executor=dg.in_process_executor,
    )
