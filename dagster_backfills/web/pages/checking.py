"""Dry runs of files that have come: worked in the background, watched, and remembered until their import starts."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dagster_backfills.domains.kintell.file.files import FileError
from dagster_backfills.domains.kintell.rows.dry_run import validate
from dagster_backfills.domains.kintell.rows.preview import ImportPreview

_AT_ONCE = threading.BoundedSemaphore(2)
_REMEMBERED = 100


@dataclass
class Check:
    """The dry run of one file. At the end it has a verdict, or the error that there is none for."""

    size: int
    read: int = 0
    missing: int = 0
    verdict: ImportPreview | None = None
    error: Exception | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def percent(self) -> int:
        return min(99, 100 * self.read // self.size) if self.size else 0

    def run(self, database: Callable[[], Any], path: Path) -> None:
        try:
            with _AT_ONCE, database() as conn:
                found = validate(conn, str(path), [str(path.parent)], on_progress=self._note)
            self.missing = len(found.missing)
            found.missing = dict(list(found.missing.items())[:_REMEMBERED])
            self.verdict = found
        except Exception as error:  # whoever looks at the page is told
            self.error = error
        finally:
            self.ended.set()

    def _note(self, read: int, size: int) -> None:
        self.read, self.size = read, size


class Checks:
    """The newest of them, by the id of the upload. In this process: another one checks the file again."""

    def __init__(self) -> None:
        self._by_upload: OrderedDict[str, Check] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, upload: str, size: int, database: Callable[[], Any], path: Path) -> Check:
        """The check of this upload, begun unless it is there; begun anew where it failed, and not of the file."""
        with self._lock:
            found = self._by_upload.get(upload)
            if found is None or not isinstance(found.error, FileError | None):
                found = self._by_upload[upload] = Check(size)
                work = threading.Thread(target=found.run, args=(database, path), name="check", daemon=True)
                work.start()
            while len(self._by_upload) > _REMEMBERED:
                self._by_upload.popitem(last=False)
        return found

    def forget(self, upload: str) -> None:
        with self._lock:
            self._by_upload.pop(upload, None)


CHECKS = Checks()
