"""The actions behind pages and API. Anything that takes time is queued as a Dagster run.

All functions may block on the database, so coroutines must call them in a thread. `who` is recorded with the run.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dagster_backfills.components.backfill import Backfill
from dagster_backfills.components.loading import (
    declared,
    declared_by_name,
    declared_folders,
    postgres_of,
)
from dagster_backfills.components.planning import plan_backfill
from dagster_backfills.components.undoing import run_to_undo
from dagster_backfills.dagster.io_manager import engine_settings
from dagster_backfills.dagster.project import project_defs, project_module
from dagster_backfills.engine.plan import Report
from dagster_backfills.engine.selection import Which
from dagster_backfills.engine.undo import preview
from dagster_backfills.errors import UserError, did_you_mean
from dagster_backfills.instance.launching import CODE_LOCATION, Runs
from dagster_backfills.web.database import Database
from dagster_backfills.web.import_actions import ImportActions
from dagster_backfills.web.queue_actions import QueueActions
from dagster_backfills.web.refusals import Refused, refused_as
from dagster_backfills.web.settings import Settings
from dagster_backfills.web.uploads import Uploads


class Actions:
    """All actions. Those of imports and background jobs are in modules of their own."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings, self.database = settings, database
        self.runs = Runs(project_module(Path.cwd()) or CODE_LOCATION)
        self.uploads = Uploads(settings.spool, settings.limits)
        self.imports = ImportActions(settings, database, self.runs)
        self.queue = QueueActions(database, self.runs)

    def backfills(self) -> list[Backfill]:
        """The project's declared backfills, except those with a mistake. `backfill(name)` reports the mistake."""
        backfills = []
        for folder in declared_folders(project_defs(Path.cwd())):
            with suppress(UserError):
                backfills.append(declared(folder))
        return backfills

    def backfill(self, name: str) -> Backfill:
        """A backfill by its name or its folder's. Raises `Refused`: 404 if there is none, 409 if it has a mistake."""
        folders = declared_by_name(project_defs(Path.cwd()))
        folder = folders.get(name) or {each.name: each for each in folders.values()}.get(name)
        if folder is None:
            raise Refused(404, f"There is no backfill {name!r}.", did_you_mean(name, folders))
        with refused_as(409):
            return declared(folder)

    def launch(self, name: str, who: str, which: Which = Which.needed, partitions: Sequence[str] = ()) -> str:
        """Queue a run of a backfill and return its ID. Raises UserError for an unknown partition."""
        backfill = self.backfill(name)
        if partitions:
            with postgres_of(backfill).connect() as conn:
                backfill.selection().choose(conn, Which.named, partitions)
        config = {"which": which.value, "partitions": list(partitions)}
        return self.runs.submit(backfill.job, config, who)

    def plan(self, name: str, which: Which, partitions: Sequence[str]) -> Report:
        """What such a run would do. Writes nothing."""
        backfill = self.backfill(name)
        return plan_backfill(backfill, postgres_of(backfill).connect, which, partitions)

    def preview_undo(self, name: str, run_id: str, partitions: Sequence[str]) -> tuple[str, Report]:
        """The run's ID, and what undoing it would do to the backfill's tables."""
        backfill = self.backfill(name)
        connect = postgres_of(backfill).connect
        with connect() as conn:
            undoing = run_to_undo(backfill, conn, run_id, partitions)
        return undoing.run_id, preview(connect, undoing, engine_settings())

    def undo(self, name: str, run_id: str, partitions: Sequence[str], who: str) -> str:
        """Queue a run that undoes it and return that run's ID."""
        config = {"run": run_id, "partitions": list(partitions), "dry_run": False}
        return self.runs.submit(f"undo_{self.backfill(name).name}", config, who)
