"""What pages ask of the application: who asks, and the verbs. The application's own classes fit."""

from pathlib import Path
from typing import Any, Protocol

import psycopg

from dagster_backfills.domains.kintell.after.rollback import Preview
from dagster_backfills.domains.kintell.importing.account import ImportJob


class Who(Protocol):
    """Who asks."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...

    def may(self, scope: str, method: str) -> bool: ...


class Upload(Protocol):
    """A file that has come, or comes in pieces."""

    @property
    def id(self) -> str: ...

    @property
    def file_name(self) -> str: ...

    @property
    def size(self) -> int: ...


class Uploads(Protocol):
    """Files on their way in. An upload of another owner's is not there."""

    def begin(self, file_name: str, size: int, owner: str) -> Any: ...

    def find(self, upload_id: str, owner: str) -> Any: ...

    def part(self, upload: Any) -> Path: ...

    def complete(self, upload: Any) -> Path: ...

    def remove(self, upload: Any) -> None: ...


class Started(Protocol):
    """What starting an import came to. `existing`: its content was under way before."""

    @property
    def job(self) -> ImportJob: ...

    @property
    def existing(self) -> bool: ...


class Actions(Protocol):
    """The verbs. Each raises `UserError` for what can't be done; one with a `status` says which code answers it."""

    @property
    def uploads(self) -> Uploads: ...

    def find_import(self, conn: psycopg.Connection[Any], job: str) -> ImportJob: ...

    def start_import(self, path: Path, name: str, who: str, **options: Any) -> Started: ...

    def resume_import(self, job: str, who: str) -> Any: ...

    def pause_import(self, job: str) -> ImportJob: ...

    def cancel_import(self, job: str) -> ImportJob: ...

    def replay_import(self, job: str, who: str, *, create_missing_users: bool = False) -> Any: ...

    def preview_import_rollback(self, job: str) -> tuple[ImportJob, Preview]: ...

    def rollback_import(self, job: str, who: str) -> Any: ...

    def find_job(self, conn: psycopg.Connection[Any], job: str, who: Any) -> dict[str, Any]: ...

    def cancel_job(self, job: str, who: Any) -> Any: ...

    def retry_job(self, job: str, who: Any) -> Any: ...
