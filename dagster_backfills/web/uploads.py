"""Uploads in progress: written to disk as they arrive, and deleted unless an import takes them.

Each upload is a `.part` file with the bytes received so far and a `.json` file with its metadata. Not here: imports
of complete files (`import_actions`).
"""

import fcntl
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO
from uuid import uuid4

from starlette.datastructures import UploadFile

from dagster_backfills.web.limits import too_large
from dagster_backfills.web.refusals import Refused, not_found
from dagster_backfills.web.settings import Limits

PIECE = 1024 * 1024
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Upload:
    """An upload. `size`: of the complete file."""

    id: str
    file_name: str
    size: int
    owner: str


class Uploads:
    """The folder of uploads in progress."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self._lock = Lock()

    def begin(self, file_name: str, size: int, owner: str) -> Upload:
        """Begin an upload in pieces. Raises `Refused` for an invalid name or size, or too many uploads."""
        self.remove_old()
        if size > self.limits.upload_bytes:
            raise too_large(self.limits.upload_bytes)
        if size < 1:
            raise Refused(400, "The file is empty.", "Choose another file, or give its size.")
        upload = Upload(uuid4().hex, checked_name(file_name), size, owner)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock:
            if len(list(self.folder.glob("*.json"))) >= self.limits.uploads_open:
                raise Refused(
                    429, f"{self.limits.uploads_open} uploads are in progress.", "Finish or delete one first."
                )
            self.part(upload).touch(mode=0o600)
            self._note(upload).write_text(json.dumps(asdict(upload)), encoding="utf-8")
        return upload

    def keep(self, file: UploadFile, owner: str) -> Upload:
        """Store a file that was sent as a whole. Raises `Refused` as `begin` does."""
        upload = self.begin(file.filename or "", file.size or 0, owner)
        try:
            with self.part(upload).open("wb") as out:
                shutil.copyfileobj(file.file, out, PIECE)
        except BaseException:
            self.remove(upload)
            raise
        return upload

    def find(self, upload_id: str, owner: str) -> Upload:
        """Find an upload of this owner. Raises `Refused` (404) if there is none."""
        if re.fullmatch(r"[0-9a-f]{32}", upload_id):
            with suppress(FileNotFoundError):
                upload = Upload(**json.loads((self.folder / f"{upload_id}.json").read_text(encoding="utf-8")))
                if upload.owner == owner:
                    return upload
        raise not_found(f"upload {upload_id}")

    def part(self, upload: Upload) -> Path:
        return self.folder / f"{upload.id}.part"

    def _note(self, upload: Upload) -> Path:
        return self.folder / f"{upload.id}.json"

    def offset(self, upload: Upload) -> int:
        """The number of bytes received so far."""
        with suppress(FileNotFoundError):
            return self.part(upload).stat().st_size
        raise not_found(f"upload {upload.id}")

    @contextmanager
    def appending(self, upload: Upload, at: int) -> Iterator[BinaryIO]:
        """Open the file for appending at `at`. Raises `Refused` (409) if that is not its end, or if it is locked."""
        self.offset(upload)
        with self.part(upload).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refused(409, "Another request is writing to this upload.", "Wait for it.") from None
            offset = self.offset(upload)
            if at != offset:
                raise Refused(
                    409, f"The upload is at byte {offset:,}, not at {at:,}.", "Continue from there.",
                    {"Upload-Offset": str(offset)},
                )  # fmt: skip
            yield file

    def complete(self, upload: Upload) -> Path:
        """The complete file. Raises `Refused` (409) if bytes are missing."""
        offset = self.offset(upload)
        if offset != upload.size:
            raise Refused(
                409, f"The upload has only {offset:,} of {upload.size:,} bytes.", "Send the rest first.",
                {"Upload-Offset": str(offset)},
            )  # fmt: skip
        return self.part(upload)

    def remove(self, upload: Upload) -> None:
        self._note(upload).unlink(missing_ok=True)
        self.part(upload).unlink(missing_ok=True)

    def remove_old(self) -> None:
        """Delete uploads that received nothing for `upload_hours`."""
        oldest = time.time() - self.limits.upload_hours * 3600
        for file in self.folder.glob("*.part"):
            with suppress(FileNotFoundError):
                if file.stat().st_mtime < oldest:
                    file.unlink()
                    file.with_suffix(".json").unlink(missing_ok=True)


def checked_name(name: str) -> str:
    """A valid file name without a folder. Raises `Refused` otherwise."""
    plain = name.strip()
    if not plain or plain.startswith(".") or re.search(r"[/\\\x00-\x1f\x7f]", plain):
        raise Refused(400, "The file name is invalid.", "Send the name alone, without a folder.")
    try:
        length = len(plain.encode())
    except UnicodeEncodeError:
        raise Refused(400, "The file name is not valid UTF-8.", "Rename the file.") from None
    if length > _LONGEST_NAME:
        raise Refused(400, f"The file name is longer than {_LONGEST_NAME} bytes.", "Rename the file.")
    return plain


def digest_of(path: Path) -> str:
    """The file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
