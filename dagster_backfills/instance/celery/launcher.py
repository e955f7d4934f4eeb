"""dagster-celery's run launcher, extended to detect lost workers."""

from typing import Any

from dagster_celery.launcher import CeleryRunLauncher

from dagster_backfills.instance.celery.app import SETTINGS, broker_url
from dagster_backfills.instance.run_launcher import HealthByLock


class WatchedCeleryRunLauncher(HealthByLock, CeleryRunLauncher):
    """Launches like `CeleryRunLauncher`, and reports runs whose worker was killed as lost, so that they are retried.

    The stock launcher checks Celery's result, which stays `STARTED` forever if the worker dies. The run's advisory
    lock shows whether the worker is alive, even if it does not respond.
    """

    def __init__(self, **given: Any) -> None:
        given["broker"] = given.get("broker") or broker_url()
        if given.get("backend") in (None, "", "rpc://"):
            given["backend"] = given["broker"]
        super().__init__(**given)
        self.celery.conf.update(SETTINGS)

    @property
    def supports_resume_run(self) -> bool:
        # A lost run is retried as a new run, which resumes from what was committed.
        return False
