"""Splits CSV bytes into records with Python's `csv`: the offsets, fields and error of each. Pure; no I/O.

A record ends at any line break outside quotes: LF, CR LF, CR or CR CR LF. A record with broken quoting ends at its
first line break, so that it costs one row and not the rest of the file. Not here: the number of fields (`header`).
"""

import csv
import unicodedata
from collections.abc import Iterator
from functools import partial

MAX_RECORD_BYTES = 4 * 1024 * 1024
MAX_REPARSED_BYTES = 16 * MAX_RECORD_BYTES
UNTERMINATED = "Unterminated quote"
TEXT_AFTER_QUOTE = "Text after a closing quote"
TOO_LONG = f"Unterminated quote, or a row of more than {MAX_RECORD_BYTES // 1024 // 1024} MB"
NUL = "Row contains a NUL byte"

# White space and zero-width characters: no-break, joiners, direction marks, byte-order marks, soft hyphens.
INVISIBLE = "".join(c for c in map(chr, range(0x3001)) if c.isspace()) + (
    "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)

# The library's limit applies to the whole process. Records are limited by their bytes, below.
csv.field_size_limit(max(csv.field_size_limit(), 4 * MAX_RECORD_BYTES))

Record = tuple[int, int, list[str], str | None]


class NotCsv(Exception):
    """The data can't be CSV. The message says why."""


def records(data: bytes, delimiter: str, at_end: bool) -> Iterator[Record]:
    """Yield (begin, end, fields, problem) for each record of `data`, which starts at a record. Blank lines are records.

    Unless `at_end`, a last record that may continue is left out. A broken record has its whole text as its only field.
    Raises `NotCsv` for an endless line, and for too many unterminated quotes.
    """
    # Old programs end files with Ctrl-Z.
    whole = data.rstrip(b"\x1a") if at_end else data[: max(data.rfind(b"\n"), data.rfind(b"\r")) + 1]
    lines = whole.splitlines(keepends=True)
    if len(data) > MAX_RECORD_BYTES:
        _check_lines(lines, len(data) - len(whole))
    is_clean = unreadable(whole) is None
    decode = bytes.decode if is_clean else partial(bytes.decode, errors="surrogateescape")
    first = begin = reparsed = 0
    while first < len(lines):
        base = first
        reader = csv.reader(map(decode, lines[first:]), delimiter=delimiter, strict=True)
        try:
            for fields in reader:
                last = base + reader.line_num
                end = begin + (len(lines[first]) if last == first + 1 else _size(lines, first, last))
                if end - begin > MAX_RECORD_BYTES:
                    raise csv.Error
                problem = None if is_clean else unreadable(data[begin:end])
                yield begin, end, [as_text(data[begin:end])] if problem else fields, problem
                first, begin = last, end
            return
        except csv.Error as error:
            size = _size(lines, first, base + reader.line_num)
            is_open = str(error) == "unexpected end of data"
            if is_open and not at_end and size <= MAX_RECORD_BYTES:
                return
            reparsed += size
            if reparsed > MAX_REPARSED_BYTES:
                raise NotCsv("too many quotes are never closed") from None
            end = begin + len(lines[first])
            problem = unreadable(data[begin:end]) or (UNTERMINATED if is_open else TEXT_AFTER_QUOTE)
            yield begin, end, [as_text(data[begin:end])], TOO_LONG if size > MAX_RECORD_BYTES else problem
            first, begin = first + 1, end


def _check_lines(lines: list[bytes], left: int) -> None:
    if max(left, max(map(len, lines), default=0)) > MAX_RECORD_BYTES:
        raise NotCsv(f"a line is longer than {MAX_RECORD_BYTES // 1024 // 1024} MB; this is not a CSV file")


def _size(lines: list[bytes], first: int, last: int) -> int:
    return sum(map(len, lines[first:last]))


def unreadable(record: bytes) -> str | None:
    """Why a record's bytes are not text that Postgres can store, or None."""
    try:
        record.decode()
    except UnicodeDecodeError as error:
        return f"Undecodable byte 0x{record[error.start]:02x} at position {error.start + 1}"
    return NUL if b"\0" in record else None


def as_text(record: bytes) -> str:
    """A record's text without its line break. An undecodable byte is shown as `\\xe9`."""
    return record.rstrip(b"\r\n").decode(errors="backslashreplace").replace("\0", "\\x00")


def clean(value: str) -> str:
    """Normalize a non-ASCII value to NFC and strip invisible characters from its ends."""
    return value if value.isascii() else unicodedata.normalize("NFC", value).strip(INVISIBLE)


def is_blank(fields: list[str]) -> bool:
    """Whether a record has only white space, invisible characters and delimiters."""
    return not fields or not (fields[0].strip(INVISIBLE) or any(field.strip(INVISIBLE) for field in fields))
