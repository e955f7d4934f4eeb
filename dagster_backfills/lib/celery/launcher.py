"""dagster-celery's run launcher, made to notice that a worker is gone. Not here: what the workers do with a run."""

from typing import Any

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from dagster_backfills.lib.celery.app import SETTINGS, broker_url

_ANSWER_SECONDS = 3.0
_TRIES = 2


class WatchedCeleryRunLauncher(CeleryRunLauncher):
    """Launches like `CeleryRunLauncher`; a run whose worker was killed is reported lost, and so is retried.

    The stock launcher goes by the result that the worker has left, which says `STARTED` for ever where nobody is
    left to change it.
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

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """RUNNING while the worker that has the run says that it works on it."""
        if DAGSTER_CELERY_TASK_ID_TAG not in run.tags:  # started by a command, in a process of its own
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        result = self.celery.AsyncResult(run.tags[DAGSTER_CELERY_TASK_ID_TAG])
        state, info = result.state, result.info
        if state != "STARTED" or not isinstance(info, dict) or "hostname" not in info:
            return super().check_run_worker_health(run)
        worker = info["hostname"]
        for _ in range(_TRIES):
            active = self.celery.control.inspect(destination=[worker], timeout=_ANSWER_SECONDS).active()
            if active is None:
                continue
            if any(task["id"] == result.id for task in active.get(worker, [])):
                return CheckRunHealthResult(WorkerStatus.RUNNING)
            if result.state == "STARTED":
                return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"worker {worker} has been started anew")
            return super().check_run_worker_health(run)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"worker {worker} does not answer")
