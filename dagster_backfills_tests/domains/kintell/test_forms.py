"""Ambiguous encodings and other file formats are refused with a hint."""

import gzip
import io
import json
import zipfile

import pandas as pd
import pytest

from dagster_backfills.domains.kintell.file.dialect import ReadOptions, to_plain_csv
from dagster_backfills.domains.kintell.file.files import FileError, open_file
from dagster_backfills.domains.kintell.file.header import read_header
from dagster_backfills.domains.kintell.file.inbox import list_inbox
from dagster_backfills.domains.kintell.file.reader import read_blocks
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills_tests.domains.kintell.sample import COLUMNS, add_users, csv_text, row, state

TEXT = csv_text([row(1, feedback_text="Zoë was très bien"), row(2, feedback_text="Müßig"), row(4)])


@pytest.fixture
def put(tmp_path, monkeypatch):
    monkeypatch.setenv("BACKFILLS_HOME", str(tmp_path / "home"))

    def write(data, name="any.csv"):
        (tmp_path / name).write_bytes(data)
        return open_file(str(tmp_path / name), [str(tmp_path)])

    return write


def feedback(source, encoding):
    plain = to_plain_csv(source, ReadOptions(encoding=encoding))
    header = read_header(plain)
    (block,) = read_blocks(plain, header, header.data_offset, 1, 100)
    return block.frame()["feedback_text"].to_list(), str(header), block.broken


@pytest.mark.parametrize("packed", [False, True])
def test_an_ambiguous_encoding_is_refused_with_both_readings(put, packed):
    data = TEXT.encode("cp1252")
    with pytest.raises(FileError) as caught:
        to_plain_csv(put(gzip.compress(data) if packed else data))
    assert caught.value.message == (
        "any.csv has an ambiguous encoding: it reads `Zo\\xeb` as UTF-8, `Zoë` as windows-1252"
    )
    assert "--encoding" in caught.value.hint
    assert "windows-1252" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["windows-1252", "ISO-8859-15", "latin-1", "UTF-16-LE", "cp850", "UTF-32-BE"]
)
def test_a_named_encoding_is_used_and_shown(put, name):
    values, shown, _ = feedback(put(TEXT.encode(name)), name)
    assert values[:2] == ["Zoë was très bien", "Müßig"]
    assert shown == f"CSV with commas, {name}"


def test_with_utf_8_named_rows_that_are_not_utf_8_are_rejected(put):
    values, _, broken = feedback(put(TEXT.encode("cp1252")), "utf8")
    assert [list(broken), len(values)] == [[1, 2], 1]
    assert broken[1][0].startswith("Undecodable byte 0xeb")


def test_one_damaged_line_is_rejected_alone(put):
    values, _, broken = feedback(put(TEXT.encode().replace("ü".encode(), b"\xfc")), "")
    assert [list(broken), len(values)] == [[2], 2]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_byte_order_mark_is_refused_with_a_hint(put, encoding):
    with pytest.raises(
        FileError,
        match=f"`session_id.* as {encoding.upper()}. Name the encoding, for example {encoding.upper()} ",
    ):
        to_plain_csv(put(TEXT.encode(encoding)))


CONTRADICTIONS = {
    "no such name": (TEXT.encode(), "klingon", "There is no encoding klingon"),
    "no text encoding": (TEXT.encode(), "hex", "There is no encoding hex"),
    "a mark says otherwise": (
        TEXT.encode("utf-16"),
        "cp1252",
        "byte-order mark of UTF-16; it can't be cp1252",
    ),
    "not in it": (TEXT.encode() + b"\x81", "windows-1252", "has bytes that are not windows-1252"),
    "it is UTF-8": (
        TEXT.encode(),
        "windows-1252",
        "is UTF-8, not windows-1252: it reads `Zoë` as UTF-8, `ZoÃ«` as",
    ),
}


@pytest.mark.parametrize(("data", "named", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_an_encoding_that_the_file_contradicts_is_refused(put, data, named, message):
    with pytest.raises(FileError, match=message):
        to_plain_csv(put(data), ReadOptions(encoding=named))


def test_a_named_encoding_is_kept_with_the_job(put, conn, database_url, tmp_path):
    add_users(conn)
    source = put(TEXT.encode("cp1252"))
    job = register(conn, source.url, [str(tmp_path)], read_as=ReadOptions(encoding="windows-1252")).job
    done = run_import(database_url, job, Options(batch_rows=1), [str(tmp_path)])
    assert (done.inserted_rows, done.recognized) == (3, "CSV with commas, windows-1252")
    assert state(conn)["sessions"][0][8] == "Zoë was très bien"


def zipped(**parts):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), text)
    return out.getvalue()


def parquet():
    out = io.BytesIO()
    pd.DataFrame({"a": [1]}).to_parquet(out)
    return out.getvalue()


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600
ODS = "application/vnd.oasis.opendocument.spreadsheet"
NO_TABLES = {
    "pdf": (b"%PDF-1.7\n%", "is a PDF"),
    "png": (b"\x89PNG\r\n\x1a\n\0\0", "is an image"),
    "jpeg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "is an image"),
    "zip": (zipped(any_csv="a,b"), "is a zip archive.* Unpack it"),
    "empty zip": (zipped(), "is an archive.* Unpack it"),
    "xlsb": (zipped(xl__workbook_bin=""), r"is a binary workbook \(.xlsb\)"),
    "docx": (zipped(word__document_xml=""), "is a Word document"),
    "ods": (zipped(mimetype=ODS), r"is an OpenDocument spreadsheet \(.ods\)"),
    "numbers": (zipped(Index__Document_iwa=""), "is a document of Apple's Numbers"),
    "html as xls": (b"\xef\xbb\xbf\r\n<html xmlns:o='urn'><table>", "is a web page .*whatever its name says"),
    "only a table": (b"<TABLE border=1><tr>", "is a web page"),
    "xml of 2003": (
        b'<?xml version="1.0"?>\n<?mso-application progid="Excel.Sheet"?>',
        "is an XML spreadsheet",
    ),
    "xml": (b"<sessions><session/>", "is XML"),
    "web archive": (b"MIME-Version: 1.0\r\nContent-Type: multipart/related", "is a web archive"),
    "sylk": (b"ID;PWXL;N;E\r\n", "is a SYLK file"),
    "old xls": (OLE + "Workbook".encode("utf-16-le"), r"is an old workbook \(.xls\)"),
    "older xls": (OLE + "Book".encode("utf-16-le"), r"is an old workbook \(.xls\)"),
    "password": (OLE + "EncryptedPackage".encode("utf-16-le"), "is a workbook with a password.* without"),
    "doc": (OLE + "WordDocument".encode("utf-16-le"), "is an old Word document"),
    "other old": (OLE, "is an old document of Microsoft Office"),
    "parquet": (parquet(), "is a Parquet file"),
    "json": (json.dumps([{"session_id": 1}], indent=2).encode(), "is JSON"),
    "json lines": (b'{"session_id": "1"}\n{"session_id": "2"}\n', "is JSON"),
    "sqlite": (b"SQLite format 3\0\x10", "is an SQLite database"),
    "dump": (b"PGDMP\x01\x0f", "is a dump of Postgres"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0", "is an archive"),
    "rtf": (b"{\\rtf1\\ansi", "is a text document"),
    "utf-32": (",".join(COLUMNS).encode("utf-32"), "is UTF-32"),
    "gzip of a workbook": (gzip.compress(b"PK\x03\x04\x14\0"), "is a workbook or an archive in a gzip file"),
    "gzip of a pdf": (gzip.compress(b"%PDF-1.7\n"), "is a PDF"),
}


@pytest.mark.parametrize(("data", "message"), NO_TABLES.values(), ids=NO_TABLES)
def test_other_file_formats_are_refused_by_name_with_a_hint(put, data, message):
    with pytest.raises(FileError, match=message) as caught:
        read_header(to_plain_csv(put(data)))
    assert caught.value.hint


@pytest.mark.parametrize(
    "header", ["[session_id],[session_type]", "{id},b", "BMW,b", "ORC_id,b", "ID;Participant", "PAR1,b"]
)
def test_a_header_that_begins_like_another_format_is_accepted(put, header):
    with pytest.raises(FileError, match="lacks the required columns"):
        read_header(to_plain_csv(put(header.encode() + b"\n1,2\n")))


def test_an_apple_document_that_is_a_folder_is_refused_with_a_hint(put, tmp_path):
    (tmp_path / "sessions.numbers").mkdir()
    with pytest.raises(FileError, match=r"is a folder.* Export"):
        open_file(str(tmp_path / "sessions.numbers"), [str(tmp_path)])


def test_the_inbox_ignores_lock_files_of_open_workbooks(put, tmp_path):
    put(b"owner", "~$book.xlsx")
    put(b"a,b", "book.csv")
    assert list(list_inbox(str(tmp_path)).files) == [str(tmp_path / "book.csv")]
