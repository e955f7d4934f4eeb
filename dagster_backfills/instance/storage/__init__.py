"""What `dagster.yaml` names as the instance's storage."""

from dagster_backfills.instance.storage.event_log import BatchedEventLogStorage
from dagster_backfills.instance.storage.storage import BatchedPostgresStorage

__all__ = ["BatchedEventLogStorage", "BatchedPostgresStorage"]
