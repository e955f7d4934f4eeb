"""dagster-celery's run launcher, made to notice that a worker is gone. Not here: what the workers do with a run."""

from typing import Any

from dagster_celery.launcher import CeleryRunLauncher

from dagster_backfills.instance.celery.app import SETTINGS, broker_url
from dagster_backfills.instance.run_launcher import HealthByLock


class WatchedCeleryRunLauncher(HealthByLock, CeleryRunLauncher):
    """Launches like `CeleryRunLauncher`; a run whose worker was killed is reported lost, and so is retried.

    The stock launcher goes by the result that the worker has left, which says `STARTED` for ever where nobody is
    left to change it. A worker that does not answer may live; a run's lock tells.
    """

    def __init__(self, **given: Any) -> None:
        given["broker"] = given.get("broker") or broker_url()
        if given.get("backend") in (None, "", "rpc://"):
            given["backend"] = given["broker"]
        super().__init__(**given)
        self.celery.conf.update(SETTINGS)

    @property
    def supports_resume_run(self) -> bool:
        # A run that died is launched anew, as a run of its own, which goes on from what is committed.
        return False
