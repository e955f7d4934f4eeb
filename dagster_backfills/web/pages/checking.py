"""Dry runs of uploaded files: run in background threads and kept until the import starts."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dagster_backfills.domains.kintell.file.dialect import ReadOptions
from dagster_backfills.domains.kintell.file.files import FileError
from dagster_backfills.domains.kintell.rows.dry_run import validate
from dagster_backfills.domains.kintell.rows.preview import ImportPreview

_AT_ONCE = threading.BoundedSemaphore(2)
_REMEMBERED = 100


@dataclass
class Check:
    """The dry run of one file. When it has ended, it has a verdict or an error."""

    size: int
    read: int = 0
    missing: int = 0
    verdict: ImportPreview | None = None
    error: Exception | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def percent(self) -> int:
        return min(99, 100 * self.read // self.size) if self.size else 0

    def run(self, database: Callable[[], Any], path: Path, read_as: ReadOptions | None) -> None:
        try:
            with _AT_ONCE, database() as conn:
                verdict = validate(
                    conn, str(path), [str(path.parent)], read_as=read_as, on_progress=self._on_progress
                )
            self.missing = len(verdict.missing)
            verdict.missing = dict(list(verdict.missing.items())[:_REMEMBERED])
            self.verdict = verdict
        except Exception as error:  # shown on the page
            self.error = error
        finally:
            self.ended.set()

    def _on_progress(self, read: int, size: int) -> None:
        self.read, self.size = read, size


class Checks:
    """The newest checks by upload ID. Kept per process: another process checks the file again."""

    def __init__(self) -> None:
        self._by_upload: OrderedDict[str, Check] = OrderedDict()
        self._lock = threading.Lock()

    def of(
        self,
        upload: str,
        size: int,
        database: Callable[[], Any],
        path: Path,
        read_as: ReadOptions | None = None,
    ) -> Check:
        """The check of an upload. Starts one if there is none, or if the last failed, but not because of the file."""
        with self._lock:
            check = self._by_upload.get(upload)
            if check is None or not isinstance(check.error, FileError | None):
                check = self._by_upload[upload] = Check(size)
                read = (database, path, read_as)
                threading.Thread(target=check.run, args=read, name="check", daemon=True).start()
            while len(self._by_upload) > _REMEMBERED:
                self._by_upload.popitem(last=False)
        return check

    def forget(self, upload: str) -> None:
        with self._lock:
            self._by_upload.pop(upload, None)


CHECKS = Checks()
