"""Streams the rows of a CSV file in blocks, from any byte offset where a row begins. Not here: validation (`rows`)."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

import polars as pl

from dagster_backfills.domains.kintell.file.columns import KNOWN, RAW
from dagster_backfills.domains.kintell.file.dialect import PlainCsv
from dagster_backfills.domains.kintell.file.files import FileError, readable
from dagster_backfills.domains.kintell.file.header import Header
from dagster_backfills.domains.kintell.file.records import NotCsv, clean, is_blank, records

MAX_BLOCK_BYTES = 4 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024


@dataclass
class Block:
    """Rows `first_row` to `last_row` of a file. Row 1 is the first after the header; blank lines are not counted.

    `values` has the unchanged fields of all rows that could be split, row after row, and `numbers` their row numbers.
    `broken` has the error and the whole text of every other row. `byte_to` is the offset of the next block.
    """

    header: Header
    numbers: Sequence[int]
    values: list[str]
    broken: dict[int, tuple[str, str]] = field(default_factory=dict)
    first_row: int = 0
    last_row: int = -1
    byte_from: int = 0
    byte_to: int = 0

    def __len__(self) -> int:
        return self.last_row - self.first_row + 1

    def values_of(self, number: int) -> list[str]:
        """The unchanged fields of a row that could be split."""
        width = len(self.header.columns)
        at = bisect_left(self.numbers, number) * width
        return self.values[at : at + width]

    def frame(self, only: Sequence[str] = KNOWN) -> pl.DataFrame:
        """The rows that could be split: `row` (its number) and the known columns as trimmed text in NFC. Columns that
        the file lacks, or that are not in `only`, are empty."""
        columns = [pl.Series("row", self.numbers, pl.Int64)]
        for name in KNOWN:
            at = self.header.positions.get(name) if name in only else None
            texts = [""] * len(self.numbers) if at is None else self.values[at :: len(self.header.columns)]
            if not "".join(texts).isascii():
                texts = [text if text.isascii() else clean(text) for text in texts]
            columns.append(pl.Series(name, texts, pl.String))
        return pl.DataFrame(columns).with_columns(pl.col(KNOWN).str.strip_chars())


def read_blocks(
    plain: PlainCsv,
    header: Header,
    offset: int,
    first_row: int,
    max_rows: int,
) -> Iterator[Block]:
    """Yield blocks of at most `max_rows` rows, in order, from byte `offset` to the end of the file. A long run of blank
    lines gives a block without rows.

    Memory does not depend on the file's size: a block has about 4 MB, unless a single record is larger.
    """
    builder = _BlockBuilder(header, offset, first_row)
    with plain.open(offset) as handle:
        data, position = b"", offset
        while position < plain.size:
            size = min(plain.size - position - len(data), max(CHUNK_BYTES, len(data)))
            data += _read(plain, handle, size)
            at_end, end = position + len(data) >= plain.size, 0
            try:
                for begin, end, fields, problem in records(data, header.format.delimiter, at_end):
                    builder.add(fields, problem, data, begin, end)
                    if builder.row - builder.first_row == max_rows:
                        yield builder.block(position + end)
            except NotCsv as error:
                raise FileError(
                    f"{plain.name}: after byte {position}, row {builder.row:,}, {error}"
                ) from None
            data, position = data[end:], plain.size if at_end else position + end
            due = at_end or position - builder.byte_from >= MAX_BLOCK_BYTES
            if due and position > builder.byte_from:
                yield builder.block(position)


def _read(plain: PlainCsv, handle: IO[bytes], size: int) -> bytes:
    with readable(plain.url):
        data = handle.read(size)
    if not data:
        raise FileError(f"{plain.url} ended before its {plain.size} bytes: it was truncated while being read")
    return data


class _BlockBuilder:
    """Collects rows for the next block. `row` is the number of the next row."""

    def __init__(self, header: Header, offset: int, first_row: int) -> None:
        self.header, self.byte_from, self.first_row, self.row = header, offset, first_row, first_row
        self.values: list[str] = []
        self.broken: dict[int, tuple[str, str]] = {}
        plain = header.width == len(header.columns) and RAW not in header.positions
        self.plain_width = header.width if plain else -1

    def add(self, fields: list[str], problem: str | None, data: bytes, begin: int, end: int) -> None:
        """Add a record, unless it is blank. A record without the usual width is checked."""
        if is_blank(fields):
            return
        if not problem and len(fields) == self.plain_width:
            self.values += fields
        elif error := (problem, fields[0]) if problem else self.header.broken(fields, data[begin:end]):
            self.broken[self.row] = error
        else:
            self.values += [*fields, *[""] * (len(self.header.columns) - len(fields))]
        self.row += 1

    def block(self, byte_to: int) -> Block:
        """Return the collected rows, up to this offset, and start the next block."""
        numbers: Sequence[int] = range(self.first_row, self.row)
        if self.broken:
            numbers = [number for number in numbers if number not in self.broken]
        last, begin = self.row - 1, self.byte_from
        block = Block(self.header, numbers, self.values, self.broken, self.first_row, last, begin, byte_to)
        self.first_row, self.byte_from, self.values, self.broken = self.row, byte_to, [], {}
        return block
