"""New organizations become partitions, and what is stale or new is filled, without anyone asking."""

import psycopg

from dagster_backfills.defs.training.jobs import refresh_training_completions
from dagster_backfills.defs.training.partitions import organizations_partitions
from dagster_backfills.defs.training.tables import ASSETS, COMPLETIONS, PROGRESS, statement
from dagster_backfills.lib.automation import partition_sync_sensor, refresh_sensor


def _due(conn: psycopg.Connection) -> int:
    binds = {"assets": ASSETS, "completions": COMPLETIONS.asset, "progress": PROGRESS.asset}
    names = ("due_organizations", "due_progress")
    return len({row[0] for name in names for row in conn.execute(statement(name), binds)})


training_organizations_sync = partition_sync_sensor(
    "training_organizations_sync", organizations_partitions, lambda: statement("organization_keys")
)
training_completions_refresh = refresh_sensor(
    "training_completions_refresh",
    refresh_training_completions,
    _due,
    what="organizations with missing records or changed counts",
)
