"""The instance's storage: Dagster's Postgres storage with the batching event log and the run liveness locks.

Not here: the project's own tables, which are in other schemas, possibly of another database.
"""

import os
from collections.abc import Mapping
from typing import Any, cast

import dagster as dg
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import get_token_provider_from_config, pg_url_from_config

from dagster_backfills.instance.dagster_home import dagster_database_url
from dagster_backfills.instance.storage.event_log import BatchedEventLogStorage
from dagster_backfills.instance.storage.runs import LockedRunStorage
from dagster_backfills.instance.storage.schedules import ScheduleStorage
from dagster_backfills.instance.storage.sessions import pinned_url

BATCH_SIZE_VARIABLE = "DAGSTER_EVENT_BATCH_SIZE"


class BatchedPostgresStorage(DagsterPostgresStorage):
    """Runs, events, schedules and sensors in one Postgres database, with events written in batches.

    Dagster batches events only in processes with `DAGSTER_EVENT_BATCH_SIZE` in their environment. The daemon and the
    webserver write a run's planned partitions, and the run's process its materializations. All of them load this
    class first, which sets the variable to `event_batch_size` if it is not set.
    """

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: Any = None,
        token_provider: Any = None,
        event_batch_size: int = 1000,
    ) -> None:
        url = pinned_url(postgres_url)
        super().__init__(url, should_autocreate_tables, inst_data, token_provider)
        self._batched_event_log = BatchedEventLogStorage(
            url, should_autocreate_tables, token_provider=token_provider
        )
        self._runs = LockedRunStorage(url, should_autocreate_tables, token_provider=token_provider)
        self._schedules = ScheduleStorage(url, should_autocreate_tables, token_provider=token_provider)
        os.environ.setdefault(BATCH_SIZE_VARIABLE, str(event_batch_size))

    @classmethod
    def config_type(cls) -> Any:
        return {
            **cast("dict[str, Any]", super().config_type()),
            "event_batch_size": dg.Field(int, is_required=False, default_value=1000),
        }

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> "BatchedPostgresStorage":
        return cls(
            postgres_url=_url(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
            token_provider=get_token_provider_from_config(config_value),
            event_batch_size=config_value["event_batch_size"],
        )

    @property
    def event_log_storage(self) -> BatchedEventLogStorage:
        return self._batched_event_log

    @property
    def run_storage(self) -> LockedRunStorage:
        return self._runs

    @property
    def schedule_storage(self) -> ScheduleStorage:
        return self._schedules


def _url(config_value: Mapping[str, Any]) -> str:
    """The configured URL. The default is the project's own, so that `dagster` also works without our commands."""
    if config_value.get("postgres_url") or config_value.get("postgres_db"):
        return pg_url_from_config(config_value)
    return dagster_database_url()
