"""An application of the pages alone, with the domains' own verbs behind it: no run is launched, the rest is real."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from dagster_backfills.domains.kintell.after.rollback import Preview, preview_rollback
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.account import ImportJob, load_job, set_status
from dagster_backfills.domains.queue import queue
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.connection import connect
from dagster_backfills.web.pages import routes


@dataclass(frozen=True)
class Person:
    name: str
    operates: bool

    @property
    def key(self) -> str:
        return self.name

    def may(self, scope: str, method: str) -> bool:
        return self.operates or method == "GET"


class Known:
    """Says who asks, as the proxy names him; whoever comes without it sits at the machine."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            operates = headers.get("x-forwarded-role", "operator") == "operator"
            who = Person(headers.get("x-forwarded-user", "local"), operates)
            scope.setdefault("state", {}).update(identity=who, user=who.name)
        await self.app(scope, receive, send)


class Missing(UserError):
    status = 404


class Conflict(UserError):
    status = 409


@dataclass(frozen=True)
class Upload:
    id: str
    file_name: str
    size: int
    owner: str


class Uploads:
    def __init__(self, folder: Path) -> None:
        self.folder, self.known = folder, dict[str, Upload]()
        folder.mkdir()

    def begin(self, file_name: str, size: int, owner: str) -> Upload:
        if size < 1:
            raise UserError("The file has no bytes.")
        made = Upload(uuid4().hex, file_name, size, owner)
        self.known[made.id] = made
        return made

    def find(self, upload_id: str, owner: str) -> Upload:
        found = self.known.get(upload_id)
        if found is None or found.owner != owner:
            raise Missing(f"There is no upload {upload_id}.")
        return found

    def part(self, upload: Upload) -> Path:
        return self.folder / f"{upload.id}.part"

    def complete(self, upload: Upload) -> Path:
        return self.part(upload)

    def remove(self, upload: Upload) -> None:
        self.known.pop(upload.id)
        self.part(upload).unlink(missing_ok=True)


@dataclass(frozen=True)
class Started:
    job: ImportJob
    existing: bool


class StandIn:
    """The verbs. What would be a run is noted in `launched`."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.uploads, self.kept = url, Uploads(folder / "spool"), folder / "uploads"
        self.launched: list[tuple[Any, ...]] = []

    @contextmanager
    def database(self) -> Iterator[psycopg.Connection[Any]]:
        with connect(self.url, autocommit=True, application_name="pages") as conn:
            yield conn

    def find_import(self, conn: psycopg.Connection[Any], job: str) -> ImportJob:
        try:
            return load_job(conn, job)
        except UserError:
            raise Missing(f"There is no import job {job}.") from None

    def start_import(self, path: Path, name: str, who: str, **options: Any) -> Started:
        folder = self.kept / uuid4().hex
        folder.mkdir(parents=True)
        kept = shutil.move(path, folder / name)
        with self.database() as conn:
            found = register(conn, str(kept), [str(folder)], on_duplicate=options.pop("on_duplicate"))
            self.launched.append(("import", found.job, who, options))
            return Started(load_job(conn, found.job), found.existing)

    def resume_import(self, job: str, who: str) -> None:
        self.launched.append(("resume", UUID(job), who))

    def pause_import(self, job: str) -> ImportJob:
        return self._set_status(job, "pause")

    def cancel_import(self, job: str) -> ImportJob:
        return self._set_status(job, "cancel")

    def _set_status(self, job: str, verb: str) -> ImportJob:
        with self.database() as conn:
            self.find_import(conn, job)
            try:
                return set_status(conn, job, verb)
            except UserError as error:
                raise Conflict(error.message, error.hint) from error

    def replay_import(self, job: str, who: str, *, create_missing_users: bool = False) -> None:
        self.launched.append(("replay", UUID(job), who, create_missing_users))

    def preview_import_rollback(self, job: str) -> tuple[ImportJob, Preview]:
        with self.database() as conn:
            found = self.find_import(conn, job)
            return found, preview_rollback(conn, found.id)

    def rollback_import(self, job: str, who: str) -> None:
        self.launched.append(("rollback", UUID(job), who))

    def find_job(self, conn: psycopg.Connection[Any], job: str, who: Any) -> dict[str, Any]:
        try:
            [found] = queue.rows(conn, "one_job", job_id=UUID(job))
        except ValueError:
            raise Missing(f"There is no job {job}.") from None
        return found

    def cancel_job(self, job: str, who: Any) -> None:
        with self.database() as conn:
            before = queue.cancel(conn, self.find_job(conn, job, who)["id"])
        if before not in ("pending", "processing"):
            raise Conflict(f"Job {job} is {before} already.")

    def retry_job(self, job: str, who: Any) -> None:
        with self.database() as conn:
            if not queue.retry(conn, [self.find_job(conn, job, who)["id"]]):
                raise Conflict(f"Job {job}: only failed jobs can be retried.")


def stand_in(url: str, folder: Path) -> Starlette:
    app = Starlette(routes=routes, middleware=[Middleware(Known)])
    app.state.actions = actions = StandIn(url, folder)
    app.state.database = actions.database
    return app
