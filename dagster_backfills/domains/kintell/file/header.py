"""Opens a file and reads its header row: delimiter, columns, mapping. Not here: the rows (`reader`)."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NoReturn

import psycopg
from psycopg.types.json import Jsonb

from dagster_backfills.domains.kintell.file.columns import (
    KNOWN,
    LEFT_OUT,
    MESSAGE,
    OURS,
    RAW,
    REQUIRED,
    HeaderMapping,
    MappingLookup,
    check_mapping,
    closest_match,
    column_name,
)
from dagster_backfills.domains.kintell.file.dialect import (
    DELIMITERS,
    FileFormat,
    PlainCsv,
    ReadOptions,
    delimiter_name,
    to_plain_csv,
)
from dagster_backfills.domains.kintell.file.encodings import HOW
from dagster_backfills.domains.kintell.file.files import FileError, SourceFile
from dagster_backfills.domains.kintell.file.records import NotCsv, as_text, clean, is_blank, records
from dagster_backfills.domains.kintell.statements import STATEMENTS

NOT_REPAIRED = "Row was not repaired: it is only in _error_raw"

_MARK = b"\xef\xbb\xbf"
_SEP_LINE = re.compile(rb'\s*"?sep=([!-/:;<=>?@\[\\\]^`{|}~\t])"?[ ]*(?:[\r\n]+|$)', re.IGNORECASE)


@dataclass(frozen=True)
class Header:
    """A file's headers, trimmed, with its format, the offset of its first row and the user's mapping. `problem` is why
    a header row can't be split by this format's delimiter."""

    columns: tuple[str, ...]
    format: FileFormat = field(default_factory=FileFormat)
    data_offset: int = 0
    mapping: HeaderMapping = field(default_factory=HeaderMapping)
    problem: str | None = None

    def __str__(self) -> str:
        """The format and the mapping, for people."""
        mapped = [
            f"{name} {f'is {column}' if column != LEFT_OUT else 'is left out'}"
            for name in self.columns
            if (column := self.mapping.columns.get(column_name(name)))
        ]
        return f"{self.format}; {self.mapping.origin}: {', '.join(mapped)}" if mapped else str(self.format)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The column of each header, or its normalized name."""
        return () if self.problem else self.mapping.names(self.columns)

    @cached_property
    def positions(self) -> dict[str, int]:
        """The indexes of the columns that are used."""
        return {name: self.names.index(name) for name in (*KNOWN, RAW, MESSAGE) if name in self.names}

    @cached_property
    def width(self) -> int:
        """The number of columns up to the last one with a name: spreadsheets add trailing delimiters."""
        return max((at + 1 for at, name in enumerate(self.names) if name), default=0)

    @cached_property
    def missing(self) -> list[str]:
        """The required columns that the file lacks."""
        return [name for name in REQUIRED if name not in self.names]

    def broken(self, fields: list[str], record: bytes) -> tuple[str, str] | None:
        """The error of a whole row, with its text, or None. Fields in trailing columns without a name must be empty. A
        row of an error file that is only in `_error_raw` was not repaired."""
        filled = [at for at, value in enumerate(fields) if value.strip()]
        width = len(fields) if len(fields) > len(self.columns) else max(filled, default=0) + 1
        if len(fields) < self.width or width > self.width:
            return (
                f"Expected {self.width} columns, found {max(width, min(len(fields), self.width))}",
                as_text(record),
            )
        raw, message = (self.positions.get(name) for name in (RAW, MESSAGE))
        if raw is None or raw not in filled or any(self.names[at] not in OURS for at in filled):
            return None
        return (fields[message] if message in filled else NOT_REPAIRED), fields[raw]


def open_table(conn: psycopg.Connection, source: SourceFile, read_as: ReadOptions) -> tuple[PlainCsv, Header]:
    """The file as plain CSV, and its header with the mapping given by the user, else the one remembered for it."""
    plain = to_plain_csv(source, read_as)
    if read_as.mapping:
        given = HeaderMapping(check_mapping(read_as.mapping), "as given")
        return plain, read_header(plain, lambda _: given)
    return plain, read_header(plain, lambda headers: _recall(conn, headers))


def remember(conn: psycopg.Connection, header: Header) -> None:
    """Store the mapping for later files with the same headers."""
    STATEMENTS.remember_mapping(
        conn,
        digest=_digest(header.columns),
        headers=list(header.columns),
        mapping=Jsonb(dict(header.mapping.columns)),
    )


def _recall(conn: psycopg.Connection, headers: Sequence[str]) -> HeaderMapping:
    row = STATEMENTS.mapping_of_headers(conn, digest=_digest(headers))
    return HeaderMapping(row[0], f"as remembered since {row[1]}, from {row[2]}") if row else HeaderMapping()


def _digest(headers: Iterable[str]) -> bytes:
    """A digest of the set of header names: ignores their order and the columns that an error file adds."""
    names = {name for name in map(column_name, headers) if name and not name.startswith("_error_")}
    return hashlib.sha256("\0".join(sorted(names)).encode(errors="replace")).digest()


def read_header(plain: PlainCsv, lookup: MappingLookup = lambda _: HeaderMapping()) -> Header:
    """Read the header row. `lookup` returns the mapping for its headers. Raises `FileError` if there is no header row,
    if it lacks a required column or repeats a known one, or if it is ambiguous."""
    head, sep, start, at_end = _read_head(plain)
    candidates: list[Header] = []
    for delimiter in [","] if plain.format.sheet else dict.fromkeys([*sep, *DELIMITERS]):
        if first := _first_record(plain, head, delimiter, at_end):
            fields, problem, end = first
            format = replace(plain.format, delimiter=delimiter, sep_line=bool(sep))
            candidates.append(Header(tuple(fields), format, start + end, lookup(fields), problem))
    if not candidates:
        raise FileError(f"{plain.name} is empty", hint=f"It needs a header row: {','.join(KNOWN)}")
    header = _choose(plain, candidates)
    _check(plain, header)
    return header


def _read_head(plain: PlainCsv) -> tuple[bytes, str, int, bool]:
    """Read the beginning of the file, up to the end of the header row at least, without byte-order marks and a `sep=`
    line. Returns the bytes, that line's delimiter, their offset, and whether they reach the end of the file."""
    with plain.open() as handle:
        head, size = b"", 65536
        while True:
            head += handle.read(size - len(head))
            at_end = len(head) >= plain.size or len(head) < size
            start = 0
            while head.startswith(_MARK, start):
                start += len(_MARK)
            sep = _SEP_LINE.match(head, start)
            start = sep.end() if sep else start
            if at_end or all(_first_record(plain, head[start:], d, False) for d in DELIMITERS):
                return head[start:], sep.group(1).decode() if sep else "", start, at_end
            size *= 2


def _first_record(
    plain: PlainCsv, head: bytes, delimiter: str, at_end: bool
) -> tuple[list[str], str | None, int] | None:
    """The fields, problem and end of the first record that is not blank. None if there is none, or if it may continue
    after `head`."""
    try:
        for _, end, fields, problem in records(head, delimiter, at_end):
            if problem or not is_blank(fields):
                return [clean(field).strip() for field in fields], problem, end
    except NotCsv as error:
        raise FileError(f"{plain.name}: {error}") from None
    return None


def _choose(plain: PlainCsv, candidates: list[Header]) -> Header:
    """The candidate with all required columns, else the one with most known columns. Raises `FileError` if the `sep=`
    line contradicts the header row."""
    complete = [each for each in candidates if not each.missing]
    if complete and complete[0].format.sep_line and complete[0] is not candidates[0]:
        raise FileError(
            f"{plain.name} can be read in two ways: its sep= line and its header row differ",
            hint=f"{_as_split(candidates[0])} … or {_as_split(complete[0])} …. Remove or correct the sep= line.",
        )
    if complete:
        return complete[0]
    known = {*KNOWN, *(name for each in candidates for name in each.mapping.columns)}
    return max(candidates, key=lambda each: (len(known & set(each.names)), len(each.columns)))


def _as_split(header: Header) -> str:
    shown = "; ".join(f"`{name}`" for name in header.columns[:3])
    return f"with {delimiter_name(header.format.delimiter)} {len(header.columns)} columns: {shown[:200]}"


def _check(plain: PlainCsv, header: Header) -> None:
    if header.problem:
        raise FileError(
            f"{plain.name}: the header row can't be read: {header.problem}",
            hint=f"Save it as CSV UTF-8, or name its encoding: {HOW}.",
        )
    headers = {column_name(text): text for text in header.columns}
    for name, column in header.mapping.columns.items():
        if name not in headers:
            raise FileError(
                f"{plain.name} has no header {name} to map to {column}{closest_match(name, headers)}",
                hint=f"Its header row has: {', '.join(header.columns)[:300]}",
            )
    if header.missing:
        _refuse_missing(plain, header)
    for name in KNOWN:
        same = [text for text, named in zip(header.columns, header.names, strict=True) if named == name]
        if len(same) > 1:
            raise FileError(f"{plain.name} has the column {name} more than once: {', '.join(same)}")


def _refuse_missing(plain: PlainCsv, header: Header) -> NoReturn:
    named = zip(header.names, header.columns, strict=True)
    others = {name: text for name, text in named if name not in KNOWN}
    near = "".join(f"{match} to {name}" for name in header.missing if (match := closest_match(name, others)))
    raise FileError(
        f"{plain.name} lacks the required column{'s' * (len(header.missing) > 1)} {', '.join(header.missing)}{near}",
        hint=f"Its header row has: {', '.join(header.columns)[:300]}. To map a header to a column: "
        f'--map "HEADER={header.missing[0]}", or `mapping` in the job\'s configuration.',
    )
