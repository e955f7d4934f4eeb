"""Streaming the rows of a CSV file in blocks, from any byte where a row begins. Not here: what the values mean."""

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

import polars as pl

from dagster_backfills.domains.kintell.file.columns import KNOWN, RAW
from dagster_backfills.domains.kintell.file.dialect import PlainCsv, to_plain_csv
from dagster_backfills.domains.kintell.file.files import FileError, SourceFile, readable
from dagster_backfills.domains.kintell.file.header import Header
from dagster_backfills.domains.kintell.file.records import NotCsv, clean, is_blank, records

MAX_BLOCK_BYTES = 4 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024


@dataclass
class Block:
    """Rows `first_row` to `last_row` of a file (1 is the row after the header; blank lines have no number).

    `values` has the fields of those that could be split, as they stand, one row after the other; `numbers` says which
    these are. `broken` has the others: what is wrong with each, and its whole text. `byte_to` is where the next begins.
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
        """The fields of a row that could be split, as they stand in the file."""
        width = len(self.header.columns)
        at = bisect_left(self.numbers, number) * width
        return self.values[at : at + width]

    def frame(self, only: Sequence[str] = KNOWN) -> pl.DataFrame:
        """`row` (its number) and the known columns of the rows that could be split, as trimmed text in NFC. A column
        that the file does not have, or that is not in `only`, is empty."""
        columns = [pl.Series("row", self.numbers, pl.Int64)]
        for name in KNOWN:
            at = self.header.positions.get(name) if name in only else None
            texts = [""] * len(self.numbers) if at is None else self.values[at :: len(self.header.columns)]
            if not "".join(texts).isascii():
                texts = [text if text.isascii() else clean(text) for text in texts]
            columns.append(pl.Series(name, texts, pl.String))
        return pl.DataFrame(columns).with_columns(pl.col(KNOWN).str.strip_chars())


def read_blocks(
    source: SourceFile | PlainCsv,
    header: Header,
    offset: int,
    first_row: int,
    max_rows: int,
    digest: "hashlib._Hash | None" = None,
) -> Iterator[Block]:
    """Blocks of at most `max_rows` rows from byte `offset` to the end of the file, in order; one without any stands
    for a long stretch of blank lines.

    Memory does not depend on the file's size: a block has about 4 MB, unless a single record is larger.
    With `digest`, every byte read goes into it.
    """
    plain, gathered = to_plain_csv(source), _Gathered(header, offset, first_row)
    with plain.open(offset) as handle:
        data, position = b"", offset
        while position < plain.size:
            data += _read(
                plain, handle, min(plain.size - position - len(data), max(CHUNK_BYTES, len(data))), digest
            )
            at_end, end = position + len(data) >= plain.size, 0
            try:
                for begin, end, fields, problem in records(data, header.form.delimiter, at_end):
                    gathered.add(fields, problem, data, begin, end)
                    if gathered.row - gathered.first_row == max_rows:
                        yield gathered.block(position + end)
            except NotCsv as error:
                raise FileError(
                    f"{plain.name}: after byte {position}, row {gathered.row:,}, {error}"
                ) from None
            data, position = data[end:], plain.size if at_end else position + end
            due = at_end or position - gathered.byte_from >= MAX_BLOCK_BYTES
            if due and position > gathered.byte_from:
                yield gathered.block(position)


def _read(plain: PlainCsv, handle: IO[bytes], size: int, digest: "hashlib._Hash | None") -> bytes:
    with readable(plain.url):
        data = handle.read(size)
    if not data:
        raise FileError(f"{plain.url} ended before its {plain.size} bytes; it was cut while it was read")
    if digest is not None:
        digest.update(data)
    return data


class _Gathered:
    """Rows on their way to becoming a block. `row` is the number that the next one gets."""

    def __init__(self, header: Header, offset: int, first_row: int) -> None:
        self.header, self.byte_from, self.first_row, self.row = header, offset, first_row, first_row
        self.values: list[str] = []
        self.broken: dict[int, tuple[str, str]] = {}
        plain = header.width == len(header.columns) and RAW not in header.positions
        self.plain_width = header.width if plain else -1

    def add(self, fields: list[str], problem: str | None, data: bytes, begin: int, end: int) -> None:
        """Take a record, unless it is blank. One that is not plainly of the right width is looked at."""
        if is_blank(fields):
            return
        if not problem and len(fields) == self.plain_width:
            self.values += fields
        elif found := (problem, fields[0]) if problem else self.header.broken(fields, data[begin:end]):
            self.broken[self.row] = found
        else:
            self.values += [*fields, *[""] * (len(self.header.columns) - len(fields))]
        self.row += 1

    def block(self, byte_to: int) -> Block:
        """What has been gathered, up to this byte; what comes next is another block."""
        numbers: Sequence[int] = range(self.first_row, self.row)
        if self.broken:
            numbers = [number for number in numbers if number not in self.broken]
        last, begin = self.row - 1, self.byte_from
        made = Block(self.header, numbers, self.values, self.broken, self.first_row, last, begin, byte_to)
        self.first_row, self.byte_from, self.values, self.broken = self.row, byte_to, [], {}
        return made
