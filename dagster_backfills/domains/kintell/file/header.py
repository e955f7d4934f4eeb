"""The header row: which of the ways to split it is meant, and which columns it names. Not here: the rows."""

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NoReturn

from dagster_backfills.domains.kintell.file.columns import (
    KNOWN,
    LEFT_OUT,
    MESSAGE,
    OURS,
    RAW,
    REQUIRED,
    Mapped,
    Mapper,
    closest,
    column_name,
)
from dagster_backfills.domains.kintell.file.dialect import (
    DELIMITERS,
    Form,
    PlainCsv,
    delimiter_name,
    to_plain_csv,
)
from dagster_backfills.domains.kintell.file.encodings import HOW
from dagster_backfills.domains.kintell.file.files import FileError, SourceFile
from dagster_backfills.domains.kintell.file.records import (
    NotCsv,
    as_text,
    clean,
    is_blank,
    records,
)

NOT_REPAIRED = "Row was not repaired: it stands in _error_raw"

_MARK = b"\xef\xbb\xbf"
_SEP_LINE = re.compile(rb'\s*"?sep=([!-/:;<=>?@\[\\\]^`{|}~\t])"?[ ]*(?:[\r\n]+|$)', re.IGNORECASE)


@dataclass(frozen=True)
class Header:
    """The columns of a file as it writes them, trimmed, its form, and where the first row begins."""

    columns: tuple[str, ...]
    form: Form = field(default_factory=Form)
    data_offset: int = 0
    mapped: Mapped = field(default_factory=Mapped)

    def __str__(self) -> str:
        """The form and the mapping, for people."""
        said = [
            f"{name} {f'is {column}' if column != LEFT_OUT else 'is left out'}"
            for name in self.columns
            if (column := self.mapped.columns.get(column_name(name)))
        ]
        return f"{self.form}; {self.mapped.origin}: {', '.join(said)}" if said else str(self.form)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What the columns stand for."""
        return self.mapped.names(self.columns)

    @cached_property
    def positions(self) -> dict[str, int]:
        """Where the columns that mean something stand."""
        return {name: self.names.index(name) for name in (*KNOWN, RAW, MESSAGE) if name in self.names}

    @cached_property
    def width(self) -> int:
        """The columns up to the last one with a name: a spreadsheet's trailing delimiters are no columns."""
        return max((at + 1 for at, name in enumerate(self.names) if name), default=0)

    def broken(self, fields: list[str], record: bytes) -> tuple[str, str] | None:
        """What is wrong with a row as a whole, and its text. Fields of trailing columns without a name must be empty;
        a row of an error file that stands in `_error_raw` and nowhere else was not repaired."""
        filled = [at for at, value in enumerate(fields) if value.strip()]
        found = len(fields) if len(fields) > len(self.columns) else max(filled, default=0) + 1
        if len(fields) < self.width or found > self.width:
            return (
                f"Expected {self.width} columns, found {max(found, min(len(fields), self.width))}",
                as_text(record),
            )
        raw, message = (self.positions.get(name) for name in (RAW, MESSAGE))
        if raw is None or raw not in filled or any(self.names[at] not in OURS for at in filled):
            return None
        return (fields[message] if message in filled else NOT_REPAIRED), fields[raw]


@dataclass(frozen=True)
class _Reading:
    """The header row as it is with one delimiter, its fields trimmed."""

    delimiter: str
    fields: list[str]
    problem: str | None
    end: int
    mapped: Mapped = field(default_factory=Mapped)

    @property
    def names(self) -> tuple[str, ...]:
        return () if self.problem else self.mapped.names(self.fields)

    @property
    def whole(self) -> bool:
        return all(name in self.names for name in REQUIRED)

    def __str__(self) -> str:
        shown = "; ".join(f"`{name}`" for name in self.fields[:3])
        return f"with {delimiter_name(self.delimiter)} {len(self.fields)} columns: {shown[:200]}"


def read_header(source: SourceFile | PlainCsv, mapper: Mapper = lambda _: Mapped()) -> Header:
    """Recognize the file and read its header row; `mapper` says what was said of such headers. Raises `FileError` where
    there is none, where it lacks or repeats a column that counts, and where it can be read in two ways."""
    plain = to_plain_csv(source)
    head, sep, start, at_end = _head(plain)
    readings = [
        replace(reading, mapped=mapper(reading.fields)) for reading in _readings(plain, head, sep, at_end)
    ]
    if not readings:
        raise FileError(f"{plain.name} is empty", hint=f"It needs a header row: {','.join(KNOWN)}")
    meant = _meant(plain, readings, sep)
    _check(plain, meant)
    form = replace(plain.form, delimiter=meant.delimiter, sep_line=bool(sep))
    return Header(tuple(meant.fields), form, start + meant.end, meant.mapped)


def _head(plain: PlainCsv) -> tuple[bytes, str, int, bool]:
    """The file's beginning with the whole header row, without byte-order marks and a `sep=` line: the bytes, that
    line's delimiter, where they begin, and whether they are all."""
    with plain.open() as handle:
        head, wanted = b"", 65536
        while True:
            head += handle.read(wanted - len(head))
            at_end = len(head) >= plain.size or len(head) < wanted
            start = 0
            while head.startswith(_MARK, start):
                start += len(_MARK)
            sep = _SEP_LINE.match(head, start)
            start = sep.end() if sep else start
            if at_end or all(_first(plain, head[start:], d, False) for d in DELIMITERS):
                return head[start:], sep.group(1).decode() if sep else "", start, at_end
            wanted *= 2


def _first(plain: PlainCsv, head: bytes, delimiter: str, at_end: bool) -> _Reading | None:
    """The first record that is not blank; None where there is none, or where it may go on."""
    try:
        for _, end, fields, problem in records(head, delimiter, at_end):
            if problem or not is_blank(fields):
                return _Reading(delimiter, [clean(field).strip() for field in fields], problem, end)
    except NotCsv as error:
        raise FileError(f"{plain.name}: {error}") from None
    return None


def _readings(plain: PlainCsv, head: bytes, sep: str, at_end: bool) -> list[_Reading]:
    wanted = [","] if plain.form.sheet else dict.fromkeys([*sep, *DELIMITERS])
    found = (_first(plain, head, delimiter, at_end) for delimiter in wanted)
    return [reading for reading in found if reading]


def _meant(plain: PlainCsv, readings: list[_Reading], sep: str) -> _Reading:
    """The reading that finds the columns. With none, the nearest; with two that contradict each other, an error."""
    whole = [reading for reading in readings if reading.whole]
    if sep and whole and whole[0] is not readings[0]:
        raise FileError(
            f"{plain.name} can be read in two ways: its sep= line and its header row differ",
            hint=f"{readings[0]} … or {whole[0]} …. Take the sep= line out, or put the right one in.",
        )
    if whole:
        return whole[0]
    known = {*KNOWN, *(name for reading in readings for name in reading.mapped.columns)}
    return max(readings, key=lambda reading: (len(known & set(reading.names)), len(reading.fields)))


def _check(plain: PlainCsv, header: _Reading) -> None:
    if header.problem:
        raise FileError(
            f"{plain.name}: the header row can't be read: {header.problem}",
            hint=f"Save it as CSV UTF-8, or name its encoding: {HOW}.",
        )
    _check_mapped(plain, header)
    if not header.whole:
        _refuse_missing(plain, header)
    for name in KNOWN:
        same = [text for text, named in zip(header.fields, header.names, strict=True) if named == name]
        if len(same) > 1:
            raise FileError(f"{plain.name} has the column {name} more than once: {', '.join(same)}")


def _check_mapped(plain: PlainCsv, header: _Reading) -> None:
    there = {column_name(text): text for text in header.fields}
    for name, column in header.mapped.columns.items():
        if name not in there:
            raise FileError(
                f"{plain.name} has no header {name}, which is to be {column}{closest(name, there)}",
                hint=f"Its header row has: {', '.join(header.fields)[:300]}",
            )


def _refuse_missing(plain: PlainCsv, header: _Reading) -> NoReturn:
    missing = [name for name in REQUIRED if name not in header.names]
    there = zip(header.names, header.fields, strict=True)
    others = {name: text for name, text in there if name not in KNOWN}
    near = "".join(f"{found} to {name}" for name in missing if (found := closest(name, others)))
    raise FileError(
        f"{plain.name} lacks the required column{'s' * (len(missing) > 1)} {', '.join(missing)}{near}",
        hint=f"Its header row has: {', '.join(header.fields)[:300]}. To say which header is a column: "
        f'--map "HEADER={missing[0]}", or `mapping` in the job\'s configuration.',
    )
