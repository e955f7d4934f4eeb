"""Reads the zip of XML files that a workbook is, with limits against zip and XML bombs. Not here: the XML's meaning."""

import io
import zipfile
from typing import IO, Any

from dagster_backfills.domains.kintell.file.files import FileError

PIECE = 1024 * 1024
MAX_PART_BYTES = 16 * 1024**2
MAX_CELL_BYTES = 4 * 1024**2
AS_CSV = "Save the sheet as CSV UTF-8."


class Archive(zipfile.ZipFile):
    """A zip file that limits the unpacked size of each part and opens parts as `GuardedPart`."""

    def __init__(self, handle: IO[bytes], file: str) -> None:
        super().__init__(handle)
        self._file = file

    def open(self, name: Any, *args: Any, **named: Any) -> Any:
        return self.open_part(getattr(name, "filename", name), MAX_PART_BYTES)

    def open_part(self, name: str, most: int) -> "GuardedPart":
        if self.getinfo(name).file_size > most:
            raise FileError(
                f"{self._file}: its part {name} has more than {most // 1024**2:,} MB when unpacked",
                AS_CSV,
            )
        return GuardedPart(super().open(name), self._file)


class GuardedPart(io.RawIOBase):
    """A part's XML. It must be UTF-8, have no DTD, and have a tag at least every few megabytes."""

    def __init__(self, part: Any, name: str) -> None:
        self._part, self._name = part, name
        self._before, self._run = b"", 0

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(PIECE), b""))
        data: bytes = self._part.read(min(size, PIECE))
        window = self._before + data
        if b"<!DOCTYPE" in window or b"<!ENTITY" in window or b"\0" in data:
            raise FileError(f"{self._name} contains XML that no spreadsheet program writes", AS_CSV)
        tag = data.rfind(b"<")
        self._run = self._run + len(data) if tag < 0 else len(data) - tag
        if self._run > MAX_CELL_BYTES:
            raise FileError(f"{self._name} has a cell of more than {MAX_CELL_BYTES // 1024**2} MB", AS_CSV)
        self._before = window[-16:]
        return data
