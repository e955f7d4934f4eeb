"""The instance's storage classes, as named in `dagster.yaml`."""

from dagster_backfills.instance.storage.event_log import BatchedEventLogStorage
from dagster_backfills.instance.storage.storage import BatchedPostgresStorage

__all__ = ["BatchedEventLogStorage", "BatchedPostgresStorage"]
