"""Detects a file's format and converts it to plain UTF-8 CSV that can be read from any byte offset.

A UTF-8 file is read in place. Workbooks, other encodings and gzip files are converted to an unnamed temporary file that
disappears when it is closed. The conversion is deterministic, so a checkpoint's offset is valid for every attempt.
"""

import gzip
import io
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, cast

from dagster_backfills.domains.kintell.file.encodings import (
    UTF_8,
    check_encoding,
    decode_to_utf8,
    detect_encoding,
)
from dagster_backfills.domains.kintell.file.files import FileError, SourceFile
from dagster_backfills.domains.kintell.file.formats import (
    BEGINNING,
    OLE,
    UNPACK,
    ZIP,
    check_is_text,
    check_is_workbook,
    refuse_ole,
)
from dagster_backfills.state import state_dir

PIECE = 1024 * 1024
MAX_COPY_BYTES = 32 * 1024**3
MAX_RATIO = 250  # text does not compress better
SMALL_COPY_BYTES = 64 * 1024**2  # always allowed
GZIP = b"\x1f\x8b"
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}


class UnpacksTooFar(FileError):
    """The file is far larger when unpacked: it may be a bomb."""


@dataclass(frozen=True)
class ReadOptions:
    """The user's options for reading a file: the workbook's sheet, the encoding, the mapping of headers to columns; and
    the largest converted copy."""

    sheet: str = ""
    encoding: str = ""
    mapping: Mapping[str, str] = field(default_factory=dict)
    most_bytes: int = MAX_COPY_BYTES


@dataclass(frozen=True)
class FileFormat:
    """A file's detected format, shown to users as `CSV with semicolons, UTF-16, gzip`. A workbook has a `sheet`, and
    `notes` about its values."""

    delimiter: str = ","
    encoding: str = UTF_8
    compressed: bool = False
    sep_line: bool = False
    sheet: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.sheet:
            return ", ".join([f"workbook, sheet {self.sheet}", *self.notes])
        parts = [f"CSV with {delimiter_name(self.delimiter)}", self.encoding]
        parts += ["gzip"] * self.compressed + ["a sep= line before the header"] * self.sep_line
        return ", ".join(parts)


def delimiter_name(delimiter: str) -> str:
    return DELIMITERS.get(delimiter, f"`{delimiter}`")


class PlainCsv:
    """A file as plain UTF-8 CSV: the source itself or its converted `copy`. `size` and offsets refer to that text."""

    def __init__(self, source: SourceFile, format: FileFormat, copy: IO[bytes] | None = None) -> None:
        self.source, self.format, self.copy = source, format, copy
        self.name, self.url = source.name, source.url
        self.size = copy.tell() if copy else source.size

    def open(self, offset: int = 0) -> IO[bytes]:
        """Open the text at `offset`, by seeking."""
        return (
            cast("IO[bytes]", io.BufferedReader(_Copy(self.copy, offset)))
            if self.copy
            else self.source.open(offset)
        )


def to_plain_csv(source: SourceFile, read_as: ReadOptions | None = None) -> PlainCsv:
    """Detect the format and convert the file if needed. Raises `FileError` if it is not a table or is ambiguous."""
    read_as = read_as or ReadOptions()
    with source.open() as handle:
        start = handle.read(BEGINNING)
    compressed = start.startswith(GZIP)
    if compressed:
        start = next(_read(source, True), b"")[:BEGINNING]
    if start.startswith((ZIP, OLE)):
        if compressed:
            raise FileError(f"{source.name} is a workbook or an archive in a gzip file", hint=UNPACK)
        return _convert_workbook(source, read_as, start)
    check_is_text(source.name, start)
    if read_as.sheet:
        raise FileError(
            f"{source.name} is not a workbook: it has no sheet {read_as.sheet}", hint="Leave it out."
        )
    format = FileFormat(encoding=detect_encoding(source.name, start, read_as.encoding), compressed=compressed)
    if format.encoding == UTF_8 and not read_as.encoding:
        check_encoding(source.name, next(_read(source, compressed), b""))
    if format == FileFormat():
        return PlainCsv(source, format)
    pieces = _read(source, compressed)
    if format.encoding != UTF_8:
        pieces = decode_to_utf8(source.name, pieces, format.encoding)
    return PlainCsv(source, format, _write_copy(source, pieces, read_as.most_bytes))


def _convert_workbook(source: SourceFile, read_as: ReadOptions, start: bytes) -> PlainCsv:
    # Only workbooks need openpyxl, which takes as long to import as the rest of the reader.
    from dagster_backfills.domains.kintell.file.workbook import as_csv, open_sheet

    if start.startswith(OLE):
        refuse_ole(source)
    check_is_workbook(source)
    if read_as.encoding:
        raise FileError(f"{source.name} is a workbook: it has no encoding", hint="Leave it out.")
    with open_sheet(source, read_as.sheet) as sheet:
        copy = _write_copy(source, as_csv(sheet.rows()), read_as.most_bytes)
        return PlainCsv(source, FileFormat(sheet=sheet.name, notes=sheet.notes), copy)


def _write_copy(source: SourceFile, pieces: Iterator[bytes], most: int) -> IO[bytes]:
    folder, most = state_dir() / "kintell", min(most, max(SMALL_COPY_BYTES, source.size * MAX_RATIO))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        copy = cast("IO[bytes]", tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  (it ends with its readers)
        for piece in pieces:
            copy.write(piece)
            if copy.tell() > most:
                raise UnpacksTooFar(
                    f"{source.name} unpacks to more than {most:,} bytes", hint="Split it and send the parts."
                )
        copy.flush()
    except OSError as error:
        raise FileError(f"{source.name} can't be converted to plain CSV in {folder}: {error}") from error
    return copy


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
    """A reader with its own position in a file that other readers share."""

    def __init__(self, file: IO[bytes], offset: int) -> None:
        self._file, self._at = file, offset

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = os.pread(self._file.fileno(), len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
