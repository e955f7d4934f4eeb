"""What a file is given as, and bringing every form into one: plain UTF-8 CSV that can be read from any byte.

A UTF-8 file is read where it lies. UTF-16 and gzip are converted into an unnamed temporary file, which is gone with
its last reader. The same bytes always convert to the same copy, so that an offset in it holds for every attempt.
"""

import codecs
import gzip
import io
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, cast

from dagster_backfills.domains.kintell.file.files import FileError, SourceFile
from dagster_backfills.state import state_dir

PIECE = 1024 * 1024
MAX_COPY_BYTES = 32 * 1024**3
GZIP = b"\x1f\x8b"
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
NO_TABLES = {
    b"PK\x03\x04": "a workbook or a zip archive",
    b"\xd0\xcf\x11\xe0": "an old or encrypted workbook",
    b"%PDF": "a PDF",
}
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}


@dataclass(frozen=True)
class Form:
    """What a file was recognized as; its text is for people: `CSV with semicolons, UTF-16, gzip`."""

    delimiter: str = ","
    encoding: str = "UTF-8"
    compressed: bool = False
    sep_line: bool = False

    def __str__(self) -> str:
        parts = [f"CSV with {delimiter_name(self.delimiter)}", self.encoding]
        parts += ["gzip"] * self.compressed + ["a sep= line before the header"] * self.sep_line
        return ", ".join(parts)


def delimiter_name(delimiter: str) -> str:
    return DELIMITERS.get(delimiter, f"`{delimiter}`")


class PlainCsv:
    """A file as plain UTF-8 CSV: itself, or its converted `copy`. Offsets and `size` are of the plain text."""

    def __init__(self, given: SourceFile, form: Form, copy: IO[bytes] | None = None) -> None:
        self.given, self.form, self.copy = given, form, copy
        self.name, self.url = given.name, given.url
        self.size = copy.tell() if copy else given.size

    def open(self, offset: int = 0) -> IO[bytes]:
        """The bytes from `offset` on; one seek, no reading of what comes before."""
        return (
            cast("IO[bytes]", io.BufferedReader(_Copy(self.copy, offset)))
            if self.copy
            else self.given.open(offset)
        )


def to_plain_csv(source: SourceFile | PlainCsv) -> PlainCsv:
    """Recognize encoding and compression, and convert where that is needed. Raises `FileError` for what is no text."""
    if isinstance(source, PlainCsv):
        return source
    with source.open() as handle:
        start = handle.read(4)
    compressed = start.startswith(GZIP)
    if compressed:
        start = next(_read(source, True), b"")[:4]
    what = NO_TABLES.get(start)
    if what or start in UTF_32:
        raise FileError(f"{source.name} is {what or 'UTF-32'}, not CSV", hint="Save it as CSV UTF-8.")
    form = Form(encoding="UTF-16" if start[:2] in UTF_16 else "UTF-8", compressed=compressed)
    if form == Form():
        return PlainCsv(source, form)
    return PlainCsv(source, form, _converted(source, form))


def _converted(source: SourceFile, form: Form) -> IO[bytes]:
    folder = state_dir() / "kintell"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        copy = cast("IO[bytes]", tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  (it ends with its readers)
        for piece in _as_utf8(source, form):
            copy.write(piece)
            if copy.tell() > MAX_COPY_BYTES:
                raise FileError(
                    f"{source.name} has more than {MAX_COPY_BYTES // 1024**3} GB when it is unpacked"
                )
        copy.flush()
    except OSError as error:
        raise FileError(f"{source.name} can't be converted to plain CSV in {folder}: {error}") from error
    return copy


def _as_utf8(source: SourceFile, form: Form) -> Iterator[bytes]:
    pieces = _read(source, form.compressed)
    if form.encoding == "UTF-8":
        yield from pieces
        return
    try:
        for text in codecs.iterdecode(pieces, form.encoding):
            yield text.encode()
    except UnicodeDecodeError as error:
        raise FileError(
            f"{source.name} begins as {form.encoding} and has bytes that are none: {error.reason}",
            hint="Save it as CSV UTF-8.",
        ) from error


def _read(source: SourceFile, compressed: bool) -> Iterator[bytes]:
    with source.open() as handle:
        stream = cast("IO[bytes]", gzip.GzipFile(fileobj=handle)) if compressed else handle
        try:
            while piece := stream.read(PIECE):
                yield piece
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise FileError(
                f"{source.name} is a damaged gzip file: {error}", hint="Send it again."
            ) from error
        except OSError as error:
            raise FileError(f"{source.url} can't be read: {error}") from error


class _Copy(io.RawIOBase):
    """A reader with a place of its own in a file that others may read at the same time."""

    def __init__(self, file: IO[bytes], offset: int) -> None:
        self._file, self._at = file, offset

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = os.pread(self._file.fileno(), len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
