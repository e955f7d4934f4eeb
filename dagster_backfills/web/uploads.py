"""Files on their way in: written to disk as they come, never held in memory, gone unless they are taken.

Each is kept as the bytes so far and a note of what it is to be. Not here: what becomes of a file that is complete
(`actions`).
"""

import fcntl
import hashlib
import json
import re
import shutil
import time
import zipfile
import zlib
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
_RATIO = 250  # text does not pack better
_SMALL = 64 * 1024 * 1024


@dataclass(frozen=True)
class Upload:
    """A file that is to come, or has: `size` bytes in the end."""

    id: str
    file_name: str
    size: int
    owner: str


class Uploads:
    """The folder of files on their way."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self._lock = Lock()

    def begin(self, file_name: str, size: int, owner: str) -> Upload:
        """Expect a file in pieces. Raises `Refused` for a name or a size that is not taken."""
        self.remove_old()
        if size > self.limits.upload_bytes:
            raise too_large(self.limits.upload_bytes)
        if size < 1:
            raise Refused(400, "The file has no bytes.", "Send another, or give its size.")
        upload = Upload(uuid4().hex, checked_name(file_name), size, owner)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock:
            if len(list(self.folder.glob("*.json"))) >= self.limits.uploads_open:
                raise Refused(
                    429, f"{self.limits.uploads_open} uploads are under way.", "Finish one, or delete it."
                )
            self.part(upload).touch(mode=0o600)
            self._note(upload).write_text(json.dumps(asdict(upload)), encoding="utf-8")
        return upload

    def keep(self, file: UploadFile, owner: str) -> Upload:
        """Keep a file that came at once. Raises `Refused` as `begin` does."""
        upload = self.begin(file.filename or "", file.size or 0, owner)
        try:
            with self.part(upload).open("wb") as out:
                shutil.copyfileobj(file.file, out, PIECE)
        except BaseException:
            self.remove(upload)
            raise
        return upload

    def find(self, upload_id: str, owner: str) -> Upload:
        """An upload of this owner's. Raises `Refused` where there is none: another's is none."""
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
        """How many bytes are here."""
        with suppress(FileNotFoundError):
            return self.part(upload).stat().st_size
        raise not_found(f"upload {upload.id}")

    @contextmanager
    def appending(self, upload: Upload, at: int) -> Iterator[BinaryIO]:
        """The file to write to, from `at` on. Raises `Refused` (409) where that is not its end, or another writes."""
        self.offset(upload)
        with self.part(upload).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refused(409, "Another request writes to this upload.", "Wait for it to end.") from None
            there = self.offset(upload)
            if at != there:
                raise Refused(
                    409, f"The upload stands at byte {there:,}, not at {at:,}.", "Go on from there.",
                    {"Upload-Offset": str(there)},
                )  # fmt: skip
            yield file

    def complete(self, upload: Upload) -> Path:
        """The whole file. Raises `Refused` (409) while a part is missing."""
        there = self.offset(upload)
        if there != upload.size:
            raise Refused(
                409, f"{there:,} of {upload.size:,} bytes are here.", "Send the rest first.",
                {"Upload-Offset": str(there)},
            )  # fmt: skip
        return self.part(upload)

    def remove(self, upload: Upload) -> None:
        self._note(upload).unlink(missing_ok=True)
        self.part(upload).unlink(missing_ok=True)

    def remove_old(self) -> None:
        """Remove what nobody has gone on with for hours."""
        oldest = time.time() - self.limits.upload_hours * 3600
        for file in self.folder.glob("*.part"):
            with suppress(FileNotFoundError):
                if file.stat().st_mtime < oldest:
                    file.unlink()
                    file.with_suffix(".json").unlink(missing_ok=True)


def checked_name(name: str) -> str:
    """A file's name, if it is one and no path. Raises `Refused`."""
    plain = name.strip()
    if not plain or plain.startswith(".") or re.search(r"[/\\\x00-\x1f\x7f]", plain):
        raise Refused(400, "The file's name is none.", "Send its name alone, without a folder.")
    try:
        length = len(plain.encode())
    except UnicodeEncodeError:
        raise Refused(400, "The file's name is not UTF-8.", "Rename the file.") from None
    if length > _LONGEST_NAME:
        raise Refused(400, f"The file's name is longer than {_LONGEST_NAME} bytes.", "Rename the file.")
    return plain


def digest_of(path: Path) -> str:
    """The file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_bomb(path: Path, limits: Limits) -> None:
    """Raise `Refused` for an archive that unpacks to more than it may, or than text does. Nothing of it is kept."""
    packed = path.stat().st_size
    most = min(limits.unpacked_bytes, max(_SMALL, packed * _RATIO))
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        unpacked = _unpacked(file, most) if start[:2] == b"\x1f\x8b" else 0
    if start == b"PK\x03\x04":
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:  # a bad one the reader names
            unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > most:
        raise Refused(413, f"The file unpacks to more than {most:,} bytes.", "Send it in parts.")


def _unpacked(file: BinaryIO, most: int) -> int:
    """How many bytes a gzip file unpacks to, as far as `most`."""
    total, reader = 0, zlib.decompressobj(31)
    while total <= most and (packed := file.read(PIECE)):
        while packed and total <= most:
            try:
                total += len(reader.decompress(packed, PIECE))
            except zlib.error:
                return 0  # the reader names it
            packed = reader.unconsumed_tail
            if reader.eof:
                packed, reader = reader.unused_data, zlib.decompressobj(31)
    return total
