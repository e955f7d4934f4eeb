"""Streams the error file of a job: its rejected rows as they were in the file, with row number and message."""

import codecs
import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

import fsspec
import psycopg

from dagster_backfills.domains.kintell.file.columns import MESSAGE, OURS, RAW, ROW
from dagster_backfills.domains.kintell.file.files import FileError, readable
from dagster_backfills.domains.kintell.file.header import Header
from dagster_backfills.domains.kintell.importing.jobs import ImportJob, load_job
from dagster_backfills.domains.kintell.rows.messages import Reject
from dagster_backfills.domains.kintell.rows.preview import SHOWN_KINDS, ErrorKinds, FrequentError
from dagster_backfills.domains.kintell.statements import STATEMENTS


def error_csv(header: Header, rejects: Iterable[Reject]) -> Iterator[str]:
    """The error file as CSV with the file's delimiter: its columns, without those of an earlier error file, and ours.
    A row that could not be split is only in `_error_raw`, so that it can't be mistaken for a good row."""
    keep = [i for i, name in enumerate(header.names) if name not in OURS]
    raw = header.positions.get(RAW, len(header.columns))
    buffer = io.StringIO()
    # CRLF as in RFC 4180: with another line terminator, `csv` leaves a lone CR in a field unquoted. Texts are quoted
    # because a spreadsheet may treat both commas and semicolons as delimiters.
    dialect: Any = {"delimiter": header.format.delimiter, "lineterminator": "\r\n"}
    writer = csv.writer(buffer, quoting=csv.QUOTE_NONNUMERIC, **dialect)
    csv.writer(buffer, **dialect).writerow([*(header.columns[i] for i in keep), ROW, MESSAGE, RAW])
    for row, message, values, split in rejects:
        fields = dict(enumerate(values)) if split else {raw: values[0]}
        writer.writerow([*(fields.get(i, "") for i in keep), row, message, fields.get(raw, "")])
        if buffer.tell() > 65536:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def rejected_rows(conn: psycopg.Connection, job: UUID) -> Iterator[Reject]:
    """A job's open errors in file order, streamed by a server-side cursor."""
    with conn.transaction(), conn.cursor(name="kintell_errors") as cursor:
        cursor.itersize = 2000
        yield from map(
            Reject._make, cursor.execute(STATEMENTS.errors.sql, {"job": job, "after": 0, "most": None})
        )


def frequent_errors(conn: psycopg.Connection, job: UUID, most: int = SHOWN_KINDS) -> list[FrequentError]:
    """The most frequent kinds of a job's open errors, each with its first row as an example."""
    kinds = ErrorKinds()
    for number, message, *_ in rejected_rows(conn, job):
        kinds.add_messages(number, message)
    return kinds.frequent(most)


def stream_errors(conn: psycopg.Connection, job: ImportJob) -> Iterator[str]:
    """The error file's text, in pieces."""
    return error_csv(job.header, rejected_rows(conn, job.id))


def write_error_file(conn: psycopg.Connection, job: UUID, url: str) -> int:
    """Write the error file to a path or fsspec URL and return the number of its rows. With non-ASCII text, it begins
    with a byte-order mark: without one, spreadsheet programs open UTF-8 in another encoding and save the wrong
    characters."""
    imported = load_job(conn, job)
    non_ascii = not all(text.isascii() for text in stream_errors(conn, imported))
    write_file(url, as_bytes(stream_errors(conn, imported), mark=non_ascii))
    return imported.failed_rows


def as_bytes(texts: Iterable[str], *, mark: bool) -> Iterator[bytes]:
    """The texts as UTF-8, with or without a byte-order mark."""
    yield codecs.BOM_UTF8 if mark else b""
    yield from (text.encode() for text in texts)


def write_file(url: str, pieces: Iterable[bytes]) -> None:
    """Write a file to a path or fsspec URL. An existing file is replaced when the new one is complete. Raises
    `FileError` for a folder, and for a URL whose file system is unknown or not installed."""
    with readable(url):
        fs, path = fsspec.core.url_to_fs(url)
    if fs.isdir(path):
        raise FileError(f"{url} is a folder", hint="Name a file in it.")
    parent = path.rsplit("/", 1)[0]
    if parent and parent != path:
        fs.makedirs(parent, exist_ok=True)
    partial: Any = f"{path}.partial"
    with fs.open(partial, "wb") as out:
        for piece in pieces:
            out.write(piece)
    fs.mv(partial, path)
