"""New cohorts become partitions, and stale or new ones are computed, without anyone asking."""

import psycopg

from dagster_backfills.defs.progress.jobs import refresh_progress_stats
from dagster_backfills.defs.progress.partitions import cohorts_partitions
from dagster_backfills.defs.progress.status import select_cohorts
from dagster_backfills.defs.progress.tables import statement
from dagster_backfills.lib.automation import partition_sync_sensor, refresh_sensor


def _due(conn: psycopg.Connection) -> int:
    return len(select_cohorts(conn, "due"))


progress_cohorts_sync = partition_sync_sensor(
    "progress_cohorts_sync", cohorts_partitions, lambda: statement("cohort_keys")
)
progress_stats_refresh = refresh_sensor(
    "progress_stats_refresh", refresh_progress_stats, _due, what="stale or missing cohorts"
)
