"""Actions on imports: start, resume, pause, cancel, replay and roll back. Not here: rejected rows (`rejected_rows`)."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from dagster_backfills.defs.kintell.config import import_config
from dagster_backfills.defs.kintell.resources import KintellSettings
from dagster_backfills.domains.kintell.after.rollback import RollbackPreview, preview_rollback
from dagster_backfills.domains.kintell.file.dialect import ReadOptions
from dagster_backfills.domains.kintell.file.files import open_file, open_place, place_of
from dagster_backfills.domains.kintell.file.register import Preflight, open_unchanged, register, take_place
from dagster_backfills.domains.kintell.importing.jobs import ImportJob, load_job, set_status
from dagster_backfills.errors import UserError
from dagster_backfills.instance.launching import Runs
from dagster_backfills.web.database import Database
from dagster_backfills.web.refusals import Refused, not_found, refused_as
from dagster_backfills.web.settings import Settings
from dagster_backfills.web.uploads import checked_name, digest_of

TAG = "kintell/job"
IMPORT = "import_kintell_sessions"


@dataclass(frozen=True)
class Started:
    """A started import: its job and its run. `existing`: the same content had been sent before."""

    job: ImportJob
    run_id: str
    existing: bool
    preflight: Preflight


@dataclass(frozen=True)
class ImportActions:
    """Actions on imports. Anything that takes time is queued as a run, one per job at a time."""

    settings: Settings
    database: Database
    runs: Runs

    @property
    def read_as(self) -> ReadOptions:
        """How uploaded files are read: what they may unpack to is limited."""
        return ReadOptions(most_bytes=self.settings.limits.unpacked_bytes)

    def find(self, conn: psycopg.Connection[Any], job: str) -> ImportJob:
        """Find a job by ID. Raises `Refused` (404) if there is none."""
        try:
            return load_job(conn, job)
        except UserError:
            raise not_found(f"import job {job}") from None

    def start(self, path: Path, name: str, who: str, **options: Any) -> Started:
        """Store a received file, register it, and queue its import. `path` is always moved or deleted.

        options: fields of `ImportSessions`. Raises UserError for a file that can't be imported, which is not stored.
        """
        config, kintell = _checked(options), KintellSettings()
        with _kept(path, name, kintell) as kept:
            with self.database() as conn:
                on_duplicate = config.pop("on_duplicate", "skip")
                registered = register(
                    conn, kept.url, kintell.allowed, on_duplicate=on_duplicate, read_as=self.read_as
                )
                job, kept.taken = load_job(conn, registered.job), registered.is_its_file
            run_id = self.runs.once(IMPORT, {"job": str(job.id), **config}, who, {TAG: str(job.id)})
            return Started(job, run_id, registered.existing, registered.preflight)

    def resume(
        self, job: str, who: str, path: Path | None = None, name: str = "", **options: Any
    ) -> tuple[ImportJob, str]:
        """Queue a run that resumes a job; return both. A file that is sent again must have the job's digest.

        It replaces the job's stored file if that one is gone.
        """
        config, kintell = _checked(options), KintellSettings()
        config.pop("on_duplicate", None)
        with self.database() as conn:
            import_job = self._claimable(conn, job, "import")
            if path is None:
                open_unchanged(import_job, kintell.allowed)
            elif digest_of(path) != import_job.file_sha256:
                raise Refused(
                    409, f"This is not the file that job {job} was registered with.",
                    f"Its SHA-256 begins with {import_job.file_sha256[:12]}. For this one, start a new import.",
                )  # fmt: skip
            else:
                with _kept(path, name or import_job.file_name, kintell) as kept:
                    source = open_file(kept.url, kintell.allowed)
                    kept.taken = take_place(conn, import_job, source, kintell.allowed)
        return import_job, self._submit(import_job, IMPORT, config, who)

    def set_status(self, job: str, verb: str) -> ImportJob:
        """`pause` stops a job until it is resumed; `cancel` stops it for good. Imported sessions stay."""
        with self.database() as conn:
            self.find(conn, job)
            with refused_as(409):
                return set_status(conn, job, verb)

    def replay(self, job: str, who: str, *, create_missing_users: bool = False) -> tuple[ImportJob, str]:
        """Queue a run that retries a job's rejected rows."""
        config = {"create_missing_users": create_missing_users}
        return self._after(job, "replay", "replay_kintell_errors", config, who)

    def preview_rollback(self, job: str) -> tuple[ImportJob, RollbackPreview]:
        """What a rollback would remove, restore and keep."""
        with self.database() as conn:
            import_job = self._claimable(conn, job, "rollback")
            return import_job, preview_rollback(conn, import_job.id)

    def rollback(self, job: str, who: str) -> tuple[ImportJob, str]:
        """Queue a rollback."""
        return self._after(job, "rollback", "rollback_kintell_import", {"dry_run": False}, who)

    def _after(
        self, job: str, activity: str, dagster_job: str, config: Mapping[str, Any], who: str
    ) -> tuple[ImportJob, str]:
        with self.database() as conn:
            import_job = self._claimable(conn, job, activity)
        return import_job, self._submit(import_job, dagster_job, config, who)

    def _claimable(self, conn: psycopg.Connection[Any], job: str, activity: str) -> ImportJob:
        """Find a job whose status allows this activity. Raises `Refused`."""
        import_job = self.find(conn, job)
        with refused_as(409):
            import_job.check_claimable(activity)
        return import_job

    def _submit(self, job: ImportJob, dagster_job: str, config: Mapping[str, Any], who: str) -> str:
        """Queue a run that works on a job. Raises `Refused` (409) if there is an unfinished one."""
        tags = {TAG: str(job.id)}
        with self.runs.one_at_a_time:
            if run := self.runs.unfinished("", tags):
                raise Refused(
                    409, f"Run {run} is already working on job {job.id}.", "Wait until it has ended."
                )
            return self.runs.submit(dagster_job, {"job": str(job.id), **config}, who, tags)


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    with refused_as(422):
        return import_config(**options)


@dataclass
class _Kept:
    url: str
    taken: bool = False


@contextmanager
def _kept(path: Path, name: str, kintell: KintellSettings) -> Iterator[_Kept]:
    """Move the file to the storage of uploads. It is deleted at the end unless `taken` was set."""
    try:
        name = checked_name(name)
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
