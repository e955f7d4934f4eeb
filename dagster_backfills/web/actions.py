"""What people and programs do here, for pages and API alike. Each that takes time is a run in Dagster's queue.

All are functions that may wait for the database: a coroutine calls them in a thread. `who` is kept with the run.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_backfills.components.backfill import Backfill
from dagster_backfills.components.loading import backfill_named, declared, declared_folders
from dagster_backfills.components.planning import plan_backfill
from dagster_backfills.dagster.automation import UNFINISHED
from dagster_backfills.dagster.io_manager import VARIABLES
from dagster_backfills.dagster.project import project_defs
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.engine.plan import Report
from dagster_backfills.engine.selection import Which
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.undo import find, preview
from dagster_backfills.environment import from_environment
from dagster_backfills.errors import NotUsableError, UserError
from dagster_backfills.instance.launching import Launcher
from dagster_backfills.web.database import Database
from dagster_backfills.web.import_actions import ImportActions
from dagster_backfills.web.queue_actions import QueueActions
from dagster_backfills.web.refusals import Refused
from dagster_backfills.web.settings import Settings
from dagster_backfills.web.uploads import Uploads


class Actions(ImportActions, QueueActions):
    """All of them. Imports and background jobs have files of their own."""

    def __init__(self, settings: Settings, database: Database, launcher: Launcher) -> None:
        self.settings, self.database, self.launcher = settings, database, launcher
        self.uploads = Uploads(settings.spool, settings.limits)
        # Whether a run is under way is looked up and decided by one request at a time.
        self.one_at_a_time = threading.Lock()

    def backfills(self) -> list[Backfill]:
        """The project's declared backfills."""
        from_here = project_defs(Path.cwd())
        return [declared(folder) for folder in declared_folders(from_here)]

    def backfill(self, name: str) -> Backfill:
        """One by its name. Raises `Refused` (404) where there is none."""
        try:
            return backfill_named(name, Path.cwd())
        except UserError as error:
            raise Refused(404, f"There is no backfill {name!r}.", error.hint) from None

    def launch(self, name: str, who: str, which: Which = Which.needed, partitions: Sequence[str] = ()) -> str:
        """Queue a run of a backfill; returns its id. Raises UserError for a partition that there is not."""
        backfill = self.backfill(name)
        if partitions:
            with postgres_of(backfill).connect() as conn:
                backfill.selection().choose(conn, Which.named, partitions)
        config = {"which": which.value, "partitions": list(partitions)}
        return self.launcher.submit(backfill.job, config, {}, who)

    def plan(self, name: str, which: Which, partitions: Sequence[str]) -> Report:
        """What such a run would do. Nothing is written."""
        backfill = self.backfill(name)
        connect = postgres_of(backfill).connect
        return plan_backfill(backfill, connect, which, partitions, instance=self.launcher.instance)

    def preview_undo(self, name: str, run_id: str, partitions: Sequence[str]) -> tuple[str, Report]:
        """The run, and what undoing it would do. Raises `Refused` where it wrote other tables than the backfill's."""
        backfill = self.backfill(name)
        connect = postgres_of(backfill).connect
        with connect() as conn:
            undoing = find(conn, run_id, partitions)
        if strange := set(undoing.shapes) - set(backfill.assets):
            raise Refused(409, f"Run {undoing.run_id} wrote {min(strange)}, which is not of {name}.")
        settings = EngineSettings(**from_environment(EngineSettings, VARIABLES))
        return undoing.run_id, preview(connect, undoing, settings)

    def undo(self, name: str, run_id: str, partitions: Sequence[str], who: str) -> str:
        """Queue the run that undoes it; returns its id."""
        if self.backfill(name).declared.database:
            raise Refused(400, f"{name} has a database of its own.", f"backfills undo {run_id}")
        config = {"run": run_id, "partitions": list(partitions), "dry_run": False}
        return self.launcher.submit("undo_run", config, {}, who)

    def run_once(self, job: str, config: Mapping[str, Any] | None, tags: Mapping[str, str], who: str) -> str:
        """Queue a run of a job, unless one with these tags is under way already; returns its id."""
        with self.one_at_a_time:
            return self.unfinished_run(job, tags) or self.launcher.submit(job, config, tags, who)

    def run(self, run_id: str) -> "RunState":
        """How a run stands. Raises `Refused` (404) where there is none."""
        run = self.launcher.instance.get_run_by_id(run_id)
        if run is None:
            raise Refused(404, f"There is no run {run_id}.")
        return RunState(run.run_id, run.job_name, run.status.value.lower(), run.is_finished, run.is_success)

    def unfinished_run(self, job: str, tags: Mapping[str, str]) -> str | None:
        """A run of the job with these tags that waits or works."""
        filters = dg.RunsFilter(job_name=job or None, tags=dict(tags), statuses=UNFINISHED)
        found = self.launcher.instance.get_runs(filters, limit=1)
        return found[0].run_id if found else None


def postgres_of(backfill: Backfill) -> PostgresResource:
    """The backfill's database."""
    variable = backfill.declared.database
    if variable and not os.environ.get(variable):
        raise NotUsableError(f"{variable} is not set, which the backfill's database is named by.")
    return PostgresResource(url=os.environ[variable]) if variable else PostgresResource()


@dataclass(frozen=True)
class RunState:
    """A run as Dagster has it."""

    run_id: str
    job: str
    status: str
    finished: bool
    succeeded: bool
