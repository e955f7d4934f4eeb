"""What `dagster.yaml` names as the instance's storage."""

from dagster_backfills.lib.dagster_storage.event_log import BatchedEventLogStorage
from dagster_backfills.lib.dagster_storage.storage import BatchedPostgresStorage

__all__ = ["BatchedEventLogStorage", "BatchedPostgresStorage"]
