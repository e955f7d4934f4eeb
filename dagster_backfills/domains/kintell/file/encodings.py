"""Detects a file's encoding from its bytes or the user's option, and asks the user if it is ambiguous."""

import codecs
import re
from collections.abc import Iterator
from typing import NoReturn

from dagster_backfills.domains.kintell.file.files import FileError

UTF_8, UTF_16 = "UTF-8", "UTF-16"
_MARKS = ((codecs.BOM_UTF8, UTF_8), (codecs.BOM_UTF16_LE, UTF_16), (codecs.BOM_UTF16_BE, UTF_16))
_UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_LIKELY = "windows-1252"
_SHOWN = 40
_WORD = rb"[^\s,;|\"]"
SAVE_AS = "Save it as CSV UTF-8."
HOW = "--encoding NAME, or `encoding` in the job's configuration"


def detect_encoding(name: str, beginning: bytes, named: str) -> str:
    """The file's encoding: from its byte-order mark, else as `named` by the user, else UTF-8. Raises `FileError` if the
    mark and the name contradict each other, for an unknown name, and for UTF-16 without a mark."""
    if beginning.startswith(_UTF_32) and not _canonical(named).startswith("utf-32"):
        raise FileError(f"{name} is UTF-32", hint=SAVE_AS)
    marked = next((encoding for mark, encoding in _MARKS if beginning.startswith(mark)), "")
    if named and not _canonical(named):
        raise FileError(
            f"There is no encoding {named}",
            hint="Examples: UTF-8, UTF-16-LE, windows-1252, ISO-8859-15.",
        )
    if not named:
        return marked or _without_mark(name, beginning)
    if marked and not _canonical(named).startswith(marked.lower()):
        raise FileError(
            f"{name} begins with the byte-order mark of {marked}; it can't be {named}", hint="Leave it out."
        )
    return marked or (UTF_8 if _canonical(named) in ("utf-8", "utf-8-sig", "ascii") else named)


def _canonical(named: str) -> str:
    """Python's name of a text encoding, empty if it is unknown."""
    try:
        return codecs.lookup(named).name if isinstance("".encode(named), bytes) else ""
    except (LookupError, ValueError, UnicodeError):
        return ""


def _without_mark(name: str, beginning: bytes) -> str:
    """UTF-8, unless the alternating NUL bytes of UTF-16 are found."""
    for at, encoding in ((1, "UTF-16-LE"), (0, "UTF-16-BE")):
        pairs = beginning[: len(beginning) // 2 * 2]
        if len(pairs) >= 16 and pairs[at::2].count(0) > len(pairs) * 0.4 and not pairs[1 - at :: 2].count(0):
            text = pairs.decode(encoding, "replace").splitlines()[0]
            _refuse(name, encoding, [("UTF-8", _printable(pairs[: 2 * _SHOWN])), (encoding, text[:_SHOWN])])
    return UTF_8


def check_encoding(name: str, beginning: bytes) -> None:
    """Raise `FileError` if the beginning has several lines that are not UTF-8 and no valid non-ASCII character. The
    file has another encoding, and every row with an accent would be rejected. A single damaged line costs one row."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning)
        return
    except UnicodeDecodeError as error:
        at = error.start
    odd = sum(not line.isascii() for line in beginning.splitlines())
    if odd < 2 or re.search(r"[^\x00-\x7f]", beginning.decode(errors="ignore")):
        return
    begin = re.search(_WORD + rb"*\Z", beginning[max(0, at - _SHOWN) : at])
    word = beginning[at - len(begin[0]) if begin else at :][:_SHOWN]
    match = re.match(_WORD + rb"+", word)
    sample = match[0] if match else word[:1]
    readings = [(UTF_8, _printable(sample)), (_LIKELY, sample.decode(_LIKELY, "backslashreplace"))]
    _refuse(name, _LIKELY, readings, " With UTF-8, rows that have such bytes are rejected.")


def _printable(data: bytes) -> str:
    return data.decode(errors="backslashreplace").replace("\0", "\\x00")[:_SHOWN]


def _refuse(name: str, likely: str, readings: list[tuple[str, str]], more: str = "") -> NoReturn:
    shown = ", ".join(f"`{text}` as {encoding}" for encoding, text in readings)
    raise FileError(
        f"{name} has an ambiguous encoding: it reads {shown}",
        hint=f"Name the encoding, for example {likely} ({HOW}).{more}",
    )


def decode_to_utf8(name: str, pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Decode the file and encode it as UTF-8. Raises `FileError` for bytes that are invalid in the encoding, and for a
    file that is valid UTF-8 although another encoding was named."""
    utf_8, is_utf_8, first_odd, done = codecs.getincrementaldecoder("utf-8")(), True, b"", 0

    def inspected() -> Iterator[bytes]:
        nonlocal is_utf_8, first_odd, done
        for piece in pieces:
            done += len(piece)
            try:
                is_utf_8 = is_utf_8 and utf_8.decode(piece) is not None
            except UnicodeDecodeError:
                is_utf_8 = False
            if not first_odd and (odd := re.search(rb"\w*[\x80-\xff][\w\x80-\xff]*", piece)):
                first_odd = odd[0][:_SHOWN]
            yield piece

    try:
        for text in codecs.iterdecode(inspected(), encoding):
            yield text.encode()
    except UnicodeError as error:
        where = f"among the first {done:,} bytes"
        raise FileError(
            f"{name} has bytes that are not {encoding}, {where}: {getattr(error, 'reason', error)}",
            hint=f"{SAVE_AS} Or name another encoding: {HOW}.",
        ) from error
    if first_odd and is_utf_8 and not encoding.lower().startswith("utf-16"):
        raise FileError(
            f"{name} is UTF-8, not {encoding}: it reads `{first_odd.decode(errors='ignore')}` as UTF-8, "
            f"`{first_odd.decode(encoding, 'replace')}` as {encoding}",
            hint="Leave the encoding out.",
        )
