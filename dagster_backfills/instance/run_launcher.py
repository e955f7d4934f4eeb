"""Dagster's own run launcher, made to notice that a run's process is gone. Not here: launching and cancelling.

The stock launcher leaves that to the code server that started the process. When both are killed at once, by the end
of their machine say, nobody is left to tell, and the run would count as started for ever: its slots stay taken, and
a sensor that waits for it waits for ever. A code server that was reloaded doesn't know its earlier runs, which live.
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

# A process whose connection was lost (the server was restarted) takes its lock again within about half of this.
GRACE_SECONDS = 60


class HealthByLock(RunLauncher):
    """For a launcher: a started run is lost when nobody has held its lock for a while. When in doubt, it lives."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._missing_since: dict[str, float] = {}

    @property
    def supports_check_run_worker_health(self) -> bool:
        return health_answers() is not None

    def check_run_worker_health(self, run: dg.DagsterRun) -> "CheckRunHealthResult":
        words = health_answers()
        assert words is not None
        result, status = words
        # Gone while the database is asked: an answer that doesn't come ends a row of looks.
        since = self._missing_since.pop(run.run_id, time.monotonic())
        storage = self._instance.run_storage
        if not isinstance(storage, LockedRunStorage):
            return result(status.RUNNING, "this instance's storage has no locks of runs")
        if storage.is_lock_held(run.run_id):
            return result(status.RUNNING)
        if not storage.is_told_by_lock(run.run_id):
            return result(status.RUNNING, "whether its process lives is not known")
        if time.monotonic() - since >= GRACE_SECONDS:
            return result(status.NOT_FOUND, "its process is gone: nobody holds its lock")
        self._missing_since[run.run_id] = since
        return result(status.RUNNING, "its process may have to connect again")


class WatchedRunLauncher(HealthByLock, dg.DefaultRunLauncher):
    """Launches like `DefaultRunLauncher`; run monitoring learns from it which started runs are still worked on."""
