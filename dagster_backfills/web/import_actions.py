"""An import's life, as pages and API do it: start, resume, pause, cancel, replay, roll back. Not here: its rows."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from pydantic import ValidationError

from dagster_backfills.defs.kintell.config import ImportSessions
from dagster_backfills.defs.kintell.resources import KintellSettings
from dagster_backfills.domains.kintell.after.rollback import RollbackPreview, preview_rollback
from dagster_backfills.domains.kintell.file.files import FileError, open_file, open_place, place_of
from dagster_backfills.domains.kintell.file.register import Preflight, register
from dagster_backfills.domains.kintell.importing.importer import open_unchanged
from dagster_backfills.domains.kintell.importing.jobs import ImportJob, load_job, set_status
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.errors import UserError
from dagster_backfills.instance.launching import Runs
from dagster_backfills.web.database import Database
from dagster_backfills.web.refusals import Refused, not_found, refused_as
from dagster_backfills.web.settings import Settings
from dagster_backfills.web.uploads import checked_name, digest_of, refuse_bomb

TAG = "kintell/job"
IMPORT = "import_kintell_sessions"


@dataclass(frozen=True)
class Started:
    """The job of a file that was sent, and the run that works on it. `existing`: its content was under way before."""

    job: ImportJob
    run_id: str
    existing: bool
    preflight: Preflight


@dataclass(frozen=True)
class ImportActions:
    """Those of imports. What takes time is queued as a run, one for a job at a time."""

    settings: Settings
    database: Database
    runs: Runs

    def find(self, conn: psycopg.Connection[Any], job: str) -> ImportJob:
        """The job. Raises `Refused` (404) where there is none."""
        try:
            return load_job(conn, job)
        except UserError:
            raise not_found(f"import job {job}") from None

    def start(self, path: Path, name: str, who: str, **options: Any) -> Started:
        """Keep a file that was sent, register it, and queue its import. `path` is taken, or gone.

        options: fields of `ImportSessions`. Raises UserError for a file that can't be imported: nothing of it is kept.
        """
        config, kintell = checked_options(options), KintellSettings()
        with _kept(path, name, kintell, self.settings) as kept:
            with self.database() as conn:
                found = register(
                    conn, kept.url, kintell.allowed, on_duplicate=config.pop("on_duplicate", "skip")
                )
                kept.taken = not found.existing or not _still_there(load_job(conn, found.job), kintell)
                if found.existing and kept.taken:
                    _relocate(conn, load_job(conn, found.job), kept.url, kintell)
                job = load_job(conn, found.job)
            return Started(job, self._import(job, who, config), found.existing, found.preflight)

    def resume(
        self, job: str, who: str, path: Path | None = None, name: str = "", **options: Any
    ) -> tuple[ImportJob, str]:
        """Queue a run that goes on with a job; returns both. With a file, that must be the job's own.

        `path` is taken where the job's file is no longer in its place.
        """
        config, kintell = checked_options(options), KintellSettings()
        config.pop("on_duplicate", None)
        with self.database() as conn:
            found = self.find(conn, job)
            with refused_as(409):
                found.check_claimable("import")
            if run := self.runs.unfinished("", {TAG: str(found.id)}):
                raise Refused(409, f"Run {run} works on job {job} already.", "Watch its status.")
            if path is None:
                open_unchanged(found, kintell.allowed)
            elif digest_of(path) != found.file_sha256:
                raise Refused(
                    409, f"This is another file than job {job} was registered with.",
                    f"Its SHA-256 begins {found.file_sha256[:12]}. To import this one, start it.",
                )  # fmt: skip
            elif not _still_there(found, kintell):
                with _kept(path, name or found.file_name, kintell, self.settings) as kept:
                    _relocate(conn, found, kept.url, kintell)
                    kept.taken = True
        return found, self._import(found, who, config)

    def _import(self, job: ImportJob, who: str, config: Mapping[str, Any]) -> str:
        tags = {TAG: str(job.id)}
        with self.runs.one_at_a_time:
            run = self.runs.unfinished("", tags)
            return run or self.runs.submit(IMPORT, {"job": str(job.id), **config}, who, tags)

    def set_status(self, job: str, verb: str) -> ImportJob:
        """`pause` stops it at once, to be resumed; `cancel` stops it for good, and what was imported stays."""
        with self.database() as conn:
            self.find(conn, job)
            with refused_as(409):
                return set_status(conn, job, verb)

    def replay(self, job: str, who: str, *, create_missing_users: bool = False) -> tuple[ImportJob, str]:
        """Queue another try for a job's rejected rows."""
        config = {"create_missing_users": create_missing_users}
        return self._after(job, "replay", "replay_kintell_errors", config, who)

    def preview_rollback(self, job: str) -> tuple[ImportJob, RollbackPreview]:
        """What a rollback would remove, restore and keep."""
        with self.database() as conn:
            found = self.find(conn, job)
            with refused_as(409):
                found.check_claimable("rollback")
            return found, preview_rollback(conn, found.id)

    def rollback(self, job: str, who: str) -> tuple[ImportJob, str]:
        """Queue the rollback."""
        return self._after(job, "rollback", "rollback_kintell_import", {"dry_run": False}, who)

    def _after(
        self, job: str, activity: str, dagster_job: str, config: Mapping[str, Any], who: str
    ) -> tuple[ImportJob, str]:
        with self.database() as conn:
            found = self.find(conn, job)
        with refused_as(409):
            found.check_claimable(activity)
        tags = {TAG: str(found.id)}
        with self.runs.one_at_a_time:
            if run := self.runs.unfinished("", tags):
                raise Refused(409, f"Run {run} works on job {job} already.", "Wait until it has ended.")
            return found, self.runs.submit(dagster_job, {"job": str(found.id), **config}, who, tags)


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an import as its run takes them. Raises `Refused` for one that is none."""
    given = {name: value for name, value in options.items() if value not in (None, "")}
    try:
        checked = ImportSessions(**given, job="the one that is registered")
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise Refused(422, f"{field}: {first['msg']}.", "See /openapi.json.") from None
    found = {name: getattr(checked, name) for name in given}
    return found | ({"on_duplicate": checked.on_duplicate.value} if "on_duplicate" in found else {})


@dataclass
class _Kept:
    url: str
    taken: bool = False


@contextmanager
def _kept(path: Path, name: str, kintell: KintellSettings, settings: Settings) -> Iterator[_Kept]:
    """The file moved to where uploads are kept; gone again at the end, unless it was `taken`."""
    try:
        name = checked_name(name)
        refuse_bomb(path, settings.limits)
        folder = f"{kintell.uploads_url.rstrip('/')}/{uuid4().hex}"
        kept = _Kept(f"{folder}/{name}")
        place = place_of(kept.url)
        fs, target = open_place(place)
        fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        if place.is_local:
            shutil.move(path, target)
        else:
            fs.put_file(str(path), target)
    finally:
        path.unlink(missing_ok=True)
    try:
        yield kept
    finally:
        if not kept.taken:
            with suppress(OSError):
                fs.rm(target.rsplit("/", 1)[0], recursive=True)


def _still_there(job: ImportJob, kintell: KintellSettings) -> bool:
    try:
        open_unchanged(job, kintell.allowed)
    except FileError:
        return False
    return True


def _relocate(conn: psycopg.Connection[Any], job: ImportJob, url: str, kintell: KintellSettings) -> None:
    """Have a job go on with the same content at another place."""
    source = open_file(url, kintell.allowed)
    moved = STATEMENTS.relocate_job(
        conn, job=job.id, url=source.url, stamp=source.stamp(), sha256=job.file_sha256
    )
    if moved is None:
        raise Refused(409, f"Job {job.id} is being worked on.", "Watch its status.")
