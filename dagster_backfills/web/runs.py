"""Runs in Dagster's queue, as the web application launches them and looks at them. `who` is kept with each."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from dagster_backfills.dagster.automation import UNFINISHED
from dagster_backfills.instance.launching import Launcher
from dagster_backfills.web.refusals import Refused


@dataclass(frozen=True)
class RunState:
    """A run as Dagster has it."""

    run_id: str
    job: str
    status: str
    finished: bool
    succeeded: bool


class Runs:
    """The instance's runs."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        # Whether a run is under way is looked up and decided by one request at a time.
        self.one_at_a_time = threading.Lock()

    @property
    def instance(self) -> dg.DagsterInstance:
        return self.launcher.instance

    def submit(
        self, job: str, config: Mapping[str, Any] | None, who: str, tags: Mapping[str, str] | None = None
    ) -> str:
        """Queue a run of a job; returns its id."""
        return self.launcher.submit(job, config, tags or {}, who)

    def once(self, job: str, config: Mapping[str, Any] | None, who: str, tags: Mapping[str, str]) -> str:
        """Queue a run of a job, unless one with these tags is under way already; returns its id."""
        with self.one_at_a_time:
            return self.unfinished(job, tags) or self.submit(job, config, who, tags)

    def unfinished(self, job: str, tags: Mapping[str, str]) -> str | None:
        """A run of the job (of any where that is empty) with these tags that waits or works."""
        filters = dg.RunsFilter(job_name=job or None, tags=dict(tags), statuses=UNFINISHED)
        found = self.instance.get_runs(filters, limit=1)
        return found[0].run_id if found else None

    def state(self, run_id: str) -> RunState:
        """How a run stands. Raises `Refused` (404) where there is none."""
        run = self.instance.get_run_by_id(run_id)
        if run is None:
            raise Refused(404, f"There is no run {run_id}.")
        return RunState(run.run_id, run.job_name, run.status.value.lower(), run.is_finished, run.is_success)
