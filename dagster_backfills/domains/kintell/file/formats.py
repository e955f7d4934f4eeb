"""Recognizes unsupported file formats by their first bytes, and tells the user what to do instead."""

import re
import zipfile
from typing import NoReturn

from dagster_backfills.domains.kintell.file.files import FileError, SourceFile

BEGINNING = 4096
ZIP = b"PK\x03\x04"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

SAVE_AS = "Open it in the program that it comes from, and save it as .xlsx or as CSV UTF-8."
UNPACK = "Unpack it and send the file inside."
EXPORT = "Export the data from where it comes from, as CSV UTF-8 or .xlsx."

_BINARY = r"[\0-\x08\x0e-\x1f\x80-\xff]"
# How the file begins (regular expression), what it is, what to do.
_BEGINNINGS: tuple[tuple[str, str, str], ...] = (
    (r"%PDF", "a PDF", EXPORT),
    (r"\x89PNG|\xff\xd8\xff|GIF8|II\*\0|MM\0\*|BM.{4}\0\0\0\0|RIFF.{4}WEBP", "an image", EXPORT),
    (r"PAR1" + _BINARY, "a Parquet file", EXPORT),
    (r"ARROW1", "an Arrow file", EXPORT),
    (r"Obj\x01", "an Avro file", EXPORT),
    (r"ORC" + _BINARY, "an ORC file", EXPORT),
    (r"SQLite format 3\0", "an SQLite database", EXPORT),
    (r"PGDMP", "a dump of Postgres", EXPORT),
    (r"7z\xbc\xaf\x27\x1c|Rar!\x1a|BZh[1-9]1AY|\xfd7zXZ\0|\x28\xb5\x2f\xfd|PK\x05\x06", "an archive", UNPACK),
    (r"\{\\rtf", "a text document (RTF)", EXPORT),
    (r"ID;P(?:WXL|CALC|SCALC|SYLK)", "a SYLK file", SAVE_AS),
    (r"MIME-Version:", "a web archive", SAVE_AS),
    (
        r"<\?xml.*?(?:Excel\.Sheet|office:spreadsheet)",
        "an XML spreadsheet of 2003, whatever its name says",
        SAVE_AS,
    ),
    (
        r"<(?:!doctype html|html|head|body|table|meta|style|!--)",
        "a web page (HTML), whatever its name says",
        SAVE_AS,
    ),
    (r"<\?xml|<[a-z][\w:.-]*[\s>/]", "XML", EXPORT),
    (r"[\[{]\s*(?:[{\[]|\"[^\"\r\n]*\"\s*:)", "JSON", EXPORT),
)
_PATTERNS = [
    (re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:" + begins.encode("latin-1") + rb")", re.S | re.I), what, hint)
    for begins, what, hint in _BEGINNINGS
]
_IN_ZIP = (
    (r"xl/workbook\.bin", "a binary workbook (.xlsb)", SAVE_AS),
    (r"word/", "a Word document", EXPORT),
    (r"ppt/", "a presentation", EXPORT),
    (r".*\.iwa", "a document of Apple's Numbers or Pages", "Export it as CSV (UTF-8) or Excel."),
)
_IN_OLE = (
    ("EncryptedPackage", "a workbook with a password", "Save it without the password."),
    ("Workbook", "an old workbook (.xls)", SAVE_AS),
    ("Book", "an old workbook (.xls)", SAVE_AS),
    ("WordDocument", "an old Word document", EXPORT),
)
_ODS = b"application/vnd.oasis.opendocument.spreadsheet"


def check_is_text(name: str, beginning: bytes) -> None:
    """Raise `FileError` if the file begins like a format other than delimited text."""
    for pattern, what, hint in _PATTERNS:
        if pattern.match(beginning):
            _refuse(name, what, hint)


def check_is_workbook(source: SourceFile) -> None:
    """Raise `FileError` if a zip archive is not a workbook."""
    try:
        with source.open() as handle, zipfile.ZipFile(handle) as archive:
            names = archive.namelist()
            kind = b""
            if "mimetype" in names:
                with archive.open("mimetype") as part:
                    kind = part.read(100)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise FileError(
            f"{source.name} is a damaged workbook or zip archive: {error}", "Send it again."
        ) from error
    for pattern, what, hint in _IN_ZIP:
        if any(re.match(pattern, name) for name in names):
            _refuse(source.name, what, hint)
    if kind.startswith(_ODS):
        _refuse(source.name, "an OpenDocument spreadsheet (.ods)", SAVE_AS)
    if "[Content_Types].xml" not in names or not any(name.startswith("xl/") for name in names):
        _refuse(source.name, "a zip archive", UNPACK)


def refuse_ole(source: SourceFile) -> NoReturn:
    """Raise `FileError` for an old or encrypted Office document, which all begin with the same bytes."""
    rest, kinds = b"", set()
    with source.open() as handle:
        while piece := handle.read(1 << 20):
            rest = rest[-64:] + piece
            kinds |= {name for name, *_ in _IN_OLE if name.encode("utf-16-le") in rest}
    for name, what, hint in _IN_OLE:
        if name in kinds:
            _refuse(source.name, what, hint)
    _refuse(source.name, "an old document of Microsoft Office", SAVE_AS)


def _refuse(name: str, what: str, hint: str) -> NoReturn:
    raise FileError(f"{name} is {what}, not a table that can be read", hint=hint)
