"""Dagster's default run launcher, extended to detect that a run's process is gone.

The stock launcher relies on the code server that started the process. If both are killed at once, as when their machine
fails, the run would count as started forever, keep its concurrency slots and block sensors that wait for it. A reloaded
code server, on the other hand, does not know its earlier runs, which are alive.
"""

import time
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_backfills.dagster.private import health_answers
from dagster_backfills.instance.storage.runs import LockedRunStorage

if TYPE_CHECKING:
    from dagster_backfills.dagster.private import CheckRunHealthResult, RunLauncher
else:
    RunLauncher = object

# A process that loses its connection, as when the server restarts, takes its lock again within about half of this.
GRACE_SECONDS = 60


class HealthByLock(RunLauncher):
    """A launcher mixin: a started run is lost if its lock has been free for a while. In doubt, it counts as alive."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._missing_since: dict[str, float] = {}

    @property
    def supports_check_run_worker_health(self) -> bool:
        return health_answers() is not None

    def check_run_worker_health(self, run: dg.DagsterRun) -> "CheckRunHealthResult":
        answers = health_answers()
        assert answers is not None
        result, status = answers
        # Removed during the query, so that a failed query restarts the grace period.
        since = self._missing_since.pop(run.run_id, time.monotonic())
        storage = self._instance.run_storage
        if not isinstance(storage, LockedRunStorage):
            return result(status.RUNNING, "this instance's storage has no run locks")
        if storage.is_lock_held(run.run_id):
            return result(status.RUNNING)
        if not storage.has_lock(run.run_id):
            return result(status.RUNNING, "it is unknown whether its process is alive")
        if time.monotonic() - since >= GRACE_SECONDS:
            return result(status.NOT_FOUND, "its process is gone: nothing holds its lock")
        self._missing_since[run.run_id] = since
        return result(status.RUNNING, "its process may be reconnecting")


class WatchedRunLauncher(HealthByLock, dg.DefaultRunLauncher):
    """Launches like `DefaultRunLauncher`, and lets run monitoring detect runs whose process is gone."""
