"""Streaming a CSV file as blocks of whole records, from any byte where a record begins. Not here: the values."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from dagster_backfills.domains.kintell.file.fields import split_fields
from dagster_backfills.domains.kintell.file.files import FileError, SourceFile
from dagster_backfills.domains.kintell.file.records import (
    MAX_RECORD_BYTES,
    NoLineBreak,
    Records,
    line_break_byte,
    scan,
)

if TYPE_CHECKING:
    import numpy as np

REQUIRED = ("session_id", "session_type", "participant_email", "volunteer_email", "date", "duration_min")
OPTIONAL = ("rating", "feedback_text", "language_level")
KNOWN = REQUIRED + OPTIONAL
MAX_BLOCK_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Header:
    """The columns of a file, its line break (`lf` or `cr`) and where the first row begins."""

    columns: tuple[str, ...]
    line_break: str
    data_offset: int

    @property
    def positions(self) -> dict[str, int]:
        """Where the columns that mean something stand."""
        return {name: self.columns.index(name) for name in KNOWN if name in self.columns}


@dataclass
class Block:
    """Records as bytes. `first_row` numbers the first (1 is the row after the header; blank lines have no
    number); `byte_to` is where the next block begins."""

    data: bytes
    records: Records
    first_row: int
    byte_from: int
    byte_to: int

    def record(self, i: int) -> bytes:
        return self.data[self.records.starts[i] : self.records.ends[i]]

    @property
    def row_numbers(self) -> "np.ndarray":
        import numpy as np

        return np.arange(self.first_row, self.first_row + len(self.records), dtype=np.int64)


def read_header(source: SourceFile) -> Header:
    """The header row. Raises `FileError` where there is none, or where it lacks or repeats a column that counts."""
    with source.open() as handle:
        head = handle.read(65536)
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise FileError(f"{source.name} is UTF-16", hint="Save it as CSV UTF-8.")
        bom = 3 if head.startswith(b"\xef\xbb\xbf") else 0
        head = head[bom:]
        line_break = _line_break(head)
        while True:
            at_end = bom + len(head) >= source.size
            records = _scan(source, head, at_end, line_break, 0)
            if len(records) or at_end:
                break
            head += _read(source, handle, len(head))
    if not len(records):
        raise FileError(f"{source.name} is empty", hint=f"It needs a header row: {','.join(KNOWN)}")
    if records.odd.get(0):
        raise FileError(f"{source.name}: the header row can't be read: {records.odd[0]}")
    columns = _columns(source, head[records.starts[0] : records.ends[0]])
    ends = int(records.ends[0])
    rest = head[ends : ends + 2]
    past = ends + (0 if not rest else 2 if rest == b"\r\n" and line_break == "lf" else 1)
    return Header(columns, line_break, bom + past)


def _line_break(head: bytes) -> str:
    """`cr` where the first line break outside quotes is a lone carriage return."""
    outside = b"".join(head.split(b'"')[::2])
    feed, ret = outside.find(b"\n"), outside.find(b"\r")
    lone = ret >= 0 and outside[ret + 1 : ret + 2] not in (b"\n", b"") and (feed < 0 or ret < feed)
    return "cr" if lone or (ret >= 0 and ret == len(outside) - 1 and feed < 0) else "lf"


def _columns(source: SourceFile, record: bytes) -> tuple[str, ...]:
    if b"\0" in record:
        raise FileError(f"{source.name}: the header row has a NUL byte; this is no CSV file")
    try:
        columns = tuple(field.decode().strip() for field in split_fields(record))
    except UnicodeDecodeError as error:
        raise FileError(
            f"{source.name}: the header row is not UTF-8", hint="Save it as CSV UTF-8."
        ) from error
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise FileError(
            f"{source.name} lacks the required column{'s' * (len(missing) > 1)} {', '.join(missing)}",
            hint=f"Its header row has: {', '.join(columns)[:300]}",
        )
    twice = [name for name in KNOWN if columns.count(name) > 1]
    if twice:
        raise FileError(f"{source.name} has the column {twice[0]} more than once")
    return columns


def _scan(source: SourceFile, data: bytes, at_end: bool, line_break: str, offset: int) -> Records:
    try:
        return scan(data, at_end, line_break_byte(line_break))
    except NoLineBreak:
        raise FileError(
            f"{source.name}: a line after byte {offset} goes on for more than "
            f"{MAX_RECORD_BYTES // 1024 // 1024} MB; this is no CSV file"
        ) from None


def _read(source: SourceFile, handle: IO[bytes], size: int) -> bytes:
    try:
        data = handle.read(max(size, 65536))
    except OSError as error:
        raise FileError(f"{source.url} can't be read: {error}") from error
    if not data:
        raise FileError(f"{source.url} ended before its {source.size} bytes; it was cut while it was read")
    return data


def read_blocks(
    source: SourceFile,
    header: Header,
    offset: int,
    first_row: int,
    max_rows: int,
    digest: "hashlib._Hash | None" = None,
) -> Iterator[Block]:
    """Blocks of at most `max_rows` records from byte `offset` to the end of the file, in order.

    Memory does not depend on the file's size: a block has at most 4 MB, unless a single record is larger.
    With `digest`, every byte read goes into it.
    """
    with source.open(offset) as handle:
        data, position, row, per_row, wanted = b"", offset, first_row, 200.0, 0
        while True:
            size = max(wanted, min(int(per_row * max_rows * 1.05), MAX_BLOCK_BYTES))
            size = min(size - len(data), source.size - position - len(data))
            if size > 0:
                more = _read_fully(source, handle, size)
                if digest is not None:
                    digest.update(more)
                data += more
            at_end = position + len(data) >= source.size
            records = _scan(source, data, at_end, header.line_break, position)
            if records.consumed == 0 and not at_end:
                wanted = max(len(data) * 2, 65536)
                continue
            wanted = 0
            taken = _first(records, max_rows, len(data))
            per_row = max(taken.consumed / max(len(taken), 1), 1.0)
            yield Block(data, taken, row, position, position + taken.consumed)
            row += len(taken)
            position += taken.consumed
            data = data[taken.consumed :]
            if position >= source.size:
                return


def _read_fully(source: SourceFile, handle: IO[bytes], size: int) -> bytes:
    pieces, got = [], 0
    while got < size:
        try:
            piece = handle.read(size - got)
        except OSError as error:
            raise FileError(f"{source.url} can't be read: {error}") from error
        if not piece:
            raise FileError(
                f"{source.url} ended before its {source.size} bytes; it was cut while it was read"
            )
        pieces.append(piece)
        got += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _first(records: Records, n: int, length: int) -> Records:
    """The first `n` records; the rest begins where record `n` starts (blank lines before it are passed)."""
    if len(records) <= n:
        return records
    odd = {i: problem for i, problem in records.odd.items() if i < n}
    return Records(records.starts[:n], records.ends[:n], records.commas[:n], int(records.starts[n]), odd)
