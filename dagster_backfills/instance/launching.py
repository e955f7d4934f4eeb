"""Launching runs: recording a run of a code location's job and submitting it to the daemon's queue.

Not here: waiting for the run to end.
"""

import importlib
import os
import threading
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import dagster as dg
import psycopg
from pydantic import ValidationError

from dagster_backfills.dagster.automation import UNFINISHED
from dagster_backfills.dagster.launchpad import in_words
from dagster_backfills.dagster.private import origin_in_location
from dagster_backfills.engine import audit
from dagster_backfills.errors import UserError
from dagster_backfills.identity import user_tags
from dagster_backfills.instance.dagster_home import dagster_environment
from dagster_backfills.postgres.connection import connect
from dagster_backfills.postgres.embedded import resolve_database_url

CODE_LOCATION = "dagster_backfills.definitions"  # the module, and the location's name in every workspace.yaml
LAUNCHED_BY = "backfills/launched_by"
DAEMON_SILENT_SECONDS = 120  # the daemon writes a heartbeat every 30 seconds


def open_instance() -> dg.DagsterInstance:
    """Open the instance of this project's environment. The caller must dispose of it."""
    os.environ.update(dagster_environment())
    return dg.DagsterInstance.get()


def daemon_heard(instance: dg.DagsterInstance) -> datetime | None:
    """The time of the daemon's latest heartbeat; None if there is none."""
    stamps = [beat.timestamp for beat in instance.get_daemon_heartbeats().values()]
    return datetime.fromtimestamp(max(stamps), UTC) if stamps else None


def create_run(
    instance: dg.DagsterInstance,
    module: str,
    job_name: str,
    run_config: Mapping[str, Any],
    tags: Mapping[str, str],
) -> dg.DagsterRun:
    """Record a run of a job of the code location in `module`, so that it belongs to that location.

    Raises UserError for an unknown job or an invalid configuration.
    """
    job = load_job(module, job_name)
    arguments: Any = (module, job_name)
    try:
        return instance.create_run_for_job(
            job,
            run_config=run_config,
            tags=tags,
            remote_job_origin=origin_in_location(module, "__repository__", job_name),
            job_code_origin=dg.build_reconstructable_job(__name__, "load_job", arguments).get_python_origin(),
        )
    except dg.DagsterInvalidConfigError as error:
        raise UserError(str(error)) from error
    except dg.DagsterUserCodeExecutionError as error:  # raised when the job's config model rejects a value
        if not isinstance(error.__cause__, ValidationError):
            raise
        raise UserError(f"{job_name}: {in_words(error.__cause__)}.") from error


def record_launch(conn: psycopg.Connection, run: dg.DagsterRun, who: str) -> None:
    """Write a launch to the audit log, before the run starts.

    It is the request's only entry: its outcome is the run's own, because this process may be killed before the end.
    """
    domain = run.tags.get("backfills/domain")
    domains = [domain] if domain else None
    audit.record(conn, audit.Entry(who, "launch", run.job_name, domains, "started", [run.run_id]))


def load_job(module: str, job_name: str) -> dg.JobDefinition:
    """A job of the code location in `module`. Dagster calls this again in each process that executes its run."""
    with warnings.catch_warnings():  # Dagster's beta warnings
        warnings.simplefilter("ignore")
        definitions = _definitions(module)
        jobs = sorted(job.name for job in definitions.resolve_all_job_defs())
        if job_name not in jobs:
            raise UserError(f"There is no job {job_name!r}.", f"There are {', '.join(jobs) or 'none'}.")
        return definitions.resolve_job_def(job_name)


@cache
def _definitions(module: str) -> dg.Definitions:
    definitions: dg.Definitions = importlib.import_module(module).defs()
    return definitions


class Runs:
    """Submits runs to the instance's queue, from which the daemon starts them. For servers; thread-safe.

    module: the code location whose jobs are run.
    """

    def __init__(self, module: str = CODE_LOCATION) -> None:
        self.module = module
        self._lock = threading.Lock()
        self._instance: dg.DagsterInstance | None = None
        # Held while checking for an unfinished run and submitting a new one.
        self.one_at_a_time = threading.Lock()

    @property
    def instance(self) -> dg.DagsterInstance:
        """The instance of this project's environment, opened at first use."""
        with self._lock:
            if self._instance is None:
                self._instance = open_instance()
            return self._instance

    def submit(
        self, job: str, config: Mapping[str, Any] | None, who: str, tags: Mapping[str, str] | None = None
    ) -> str:
        """Queue a run of a job and return its ID without waiting. `who` is recorded in the run's tags."""
        with self._lock:  # so that only one thread loads the definitions
            load_job(self.module, job)
        run_tags = {**(tags or {}), LAUNCHED_BY: who, **user_tags(who)}
        run = create_run(self.instance, self.module, job, config or {}, run_tags)
        with connect(resolve_database_url(), autocommit=True) as conn:
            record_launch(conn, run, who)
        # Submitting uses the workspace only for the headers of UI requests.
        no_workspace: Any = None
        self.instance.submit_run(run.run_id, no_workspace)
        return run.run_id

    def once(self, job: str, config: Mapping[str, Any] | None, who: str, tags: Mapping[str, str]) -> str:
        """Queue a run of a job, unless an unfinished one has these tags. Returns the ID of either."""
        with self.one_at_a_time:
            return self.unfinished(job, tags) or self.submit(job, config, who, tags)

    def unfinished(self, job: str, tags: Mapping[str, str]) -> str | None:
        """The ID of an unfinished run of the job with these tags. An empty `job` means any job."""
        filters = dg.RunsFilter(job_name=job or None, tags=dict(tags), statuses=UNFINISHED)
        runs = self.instance.get_runs(filters, limit=1)
        return runs[0].run_id if runs else None

    def find(self, run_id: str) -> dg.DagsterRun:
        """A run in its current state. Raises UserError if it does not exist."""
        run = self.instance.get_run_by_id(run_id)
        if run is None:
            raise UserError(f"There is no run {run_id}.")
        return run

    def close(self) -> None:
        """Dispose of the instance."""
        with self._lock:
            if self._instance is not None:
                self._instance.dispose()
                self._instance = None
