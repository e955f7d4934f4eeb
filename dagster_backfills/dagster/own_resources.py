"""The database resource and the I/O manager of declared backfills, under keys of their own.

A project's own `postgres` and `io_manager` are not replaced.
"""

from functools import cache

import dagster as dg

from dagster_backfills.dagster.io_manager import VARIABLES, PostgresIOManager
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.environment import usable_from_environment


def resource_keys(variable: str | None) -> tuple[str, str]:
    """The keys of the database resource and of its I/O manager."""
    name = f"backfills_{(variable or 'postgres').lower()}"
    return name, f"{name}_io_manager"


@cache
def database_resources(variable: str | None = None) -> dict[str, object]:
    """The resources for the database whose URL is in an environment variable, by default DATABASE_URL.

    Cached, because the backfills of a code location share them.
    """
    postgres = PostgresResource(url=dg.EnvVar(variable)) if variable else PostgresResource()
    database, io_manager = resource_keys(variable)
    settings = usable_from_environment(EngineSettings, VARIABLES)
    return {database: postgres, io_manager: PostgresIOManager(postgres=postgres, **settings)}
