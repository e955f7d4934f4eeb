"""Resources that every domain uses: the database, and the I/O manager that assets are stored with."""

import dagster as dg

from dagster_backfills.lib.postgres.io_manager import PostgresIOManager
from dagster_backfills.lib.postgres.resource import PostgresResource


@dg.definitions
def resources() -> dg.Definitions:
    postgres = PostgresResource()
    return dg.Definitions(
        resources={"postgres": postgres, "io_manager": PostgresIOManager(postgres=postgres)}
    )
