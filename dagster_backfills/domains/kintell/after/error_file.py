"""The error file of a job: rejected rows as they stood, with their number and what is wrong. Streamed."""

import codecs
import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

import fsspec
import psycopg

from dagster_backfills.domains.kintell.file.columns import MESSAGE, OURS, RAW, ROW
from dagster_backfills.domains.kintell.file.header import Header
from dagster_backfills.domains.kintell.importing.account import ImportJob, load_job
from dagster_backfills.domains.kintell.rows.messages import Reject
from dagster_backfills.domains.kintell.rows.verdict import SHOWN_KINDS, ErrorKinds, FrequentError
from dagster_backfills.domains.kintell.statements import STATEMENTS


def error_lines(header: Header, rejects: Iterable[Reject]) -> Iterator[str]:
    """CSV text in the file's own dialect: its columns, without those of an earlier error file, and ours. A row that is
    not split stands in `_error_raw` alone, so that it can't be taken for a good one."""
    keep = [i for i, name in enumerate(header.names) if name not in OURS]
    raw = header.positions.get(RAW, len(header.columns))
    buffer = io.StringIO()
    # CRLF, as RFC 4180 has it; a writer that ends lines otherwise leaves a lone CR in a field unquoted. Texts are
    # quoted, as a spreadsheet may take commas and semicolons alike for delimiters.
    form: Any = {"delimiter": header.form.delimiter, "lineterminator": "\r\n"}
    writer = csv.writer(buffer, quoting=csv.QUOTE_NONNUMERIC, **form)
    csv.writer(buffer, **form).writerow([*(header.columns[i] for i in keep), ROW, MESSAGE, RAW])
    for row, message, values, split in rejects:
        fields = dict(enumerate(values)) if split else {raw: values[0]}
        writer.writerow([*(fields.get(i, "") for i in keep), row, message, fields.get(raw, "")])
        if buffer.tell() > 65536:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def rejected_rows(conn: psycopg.Connection, job: UUID) -> Iterator[Reject]:
    """A job's open errors in the file's order; they stay with the server until they are asked for."""
    with conn.transaction(), conn.cursor(name="kintell_errors") as cursor:
        cursor.itersize = 2000
        yield from map(Reject._make, cursor.execute(STATEMENTS.errors.sql, {"job": job}))


def frequent_errors(conn: psycopg.Connection, job: UUID, most: int = SHOWN_KINDS) -> list[FrequentError]:
    """The most frequent kinds of a job's open errors, each with its first row as an example."""
    found = ErrorKinds()
    for number, message, *_ in rejected_rows(conn, job):
        found.add_messages(number, message)
    return found.frequent(most)


def stream_errors(conn: psycopg.Connection, job: ImportJob) -> Iterator[str]:
    """The error file's text, a piece at a time."""
    return error_lines(job.header, rejected_rows(conn, job.id))


def write_error_file(conn: psycopg.Connection, job: UUID, url: str) -> int:
    """Write the error file to a path or fsspec URL and return the number of its rows. What was there is replaced
    when the new one is complete. Where there is anything but ASCII it begins with a byte-order mark, without which
    spreadsheets take UTF-8 for something else, and save it so."""
    found = load_job(conn, job)
    beyond = STATEMENTS.errors_beyond_ascii(conn, job=job) or not "".join(found.columns).isascii()
    fs, path = fsspec.core.url_to_fs(url)
    parent = path.rsplit("/", 1)[0]
    if parent and parent != path:
        fs.makedirs(parent, exist_ok=True)
    partial: Any = f"{path}.partial"
    with fs.open(partial, "wb") as out:
        out.write(codecs.BOM_UTF8 if beyond else b"")
        for text in stream_errors(conn, found):
            out.write(text.encode())
    fs.mv(partial, path)
    return int(STATEMENTS.count_errors(conn, job=job))
