"""A full dry run: every rule on every row, against the database as it is, and nothing written to it."""

import time
from collections.abc import Callable, Iterator
from typing import IO

import psycopg

from dagster_backfills.domains.kintell.after.error_file import error_lines
from dagster_backfills.domains.kintell.file.dialect import PlainCsv, ReadAs
from dagster_backfills.domains.kintell.file.header import Header
from dagster_backfills.domains.kintell.file.mapping import opened
from dagster_backfills.domains.kintell.file.reader import read_blocks
from dagster_backfills.domains.kintell.importing.writer import stage
from dagster_backfills.domains.kintell.rows.batches import Batch, prepare
from dagster_backfills.domains.kintell.rows.messages import Message, Reject, shown_text
from dagster_backfills.domains.kintell.rows.seen import SeenIds
from dagster_backfills.domains.kintell.rows.users import Users
from dagster_backfills.domains.kintell.rows.verdict import Example, ImportPreview
from dagster_backfills.domains.kintell.statements import STATEMENTS


def validate(
    conn: psycopg.Connection,
    url: str,
    allowed: list[str],
    *,
    on_duplicate: str = "skip",
    read_as: ReadAs | None = None,
    error_file: IO[str] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, size: None,
) -> ImportPreview:
    """Judge the whole file. `on_progress` gets bytes done and in all. Raises `FileError` for a file that can't be
    read. With `error_file`, rejected rows are written to it as they are found."""
    began, verdict = time.monotonic(), ImportPreview(on_duplicate=on_duplicate)
    source, header = opened(conn, url, allowed, read_as or ReadAs())
    verdict.recognized = str(header)
    rejects = _rejects(conn, verdict, source, header, on_progress)
    for text in error_lines(header, rejects):
        if error_file:
            error_file.write(text)
    verdict.seconds = time.monotonic() - began
    return verdict


def _rejects(
    conn: psycopg.Connection,
    verdict: ImportPreview,
    source: PlainCsv,
    header: Header,
    on_progress: Callable[[int, int], None],
) -> Iterator[Reject]:
    """Judge the file block by block for the verdict. Yields its rejected rows."""
    users, seen = Users(conn), SeenIds()
    STATEMENTS.create_stage(conn)
    for block in read_blocks(source, header, header.data_offset, 1, 20_000):
        # The connection's temporary table is all that a batch writes to, and it is empty after it.
        with conn.transaction():
            conn.execute("set transaction read only")
            rejects = _compare(conn, verdict, prepare(block, users, seen), list(header.positions))
        verdict.total += len(block)
        verdict.add_rejected((number, message) for number, message, *_ in rejects)
        yield from rejects
        on_progress(block.byte_to, source.size)


def _compare(
    conn: psycopg.Connection, verdict: ImportPreview, batch: Batch, columns: list[str]
) -> list[Reject]:
    """Count the batch against the sessions that are there. Returns its rejected rows."""
    stage(conn, batch.sessions)
    span = {"first_row": batch.block.first_row, "last_row": batch.block.last_row}
    there = STATEMENTS.staged_changes(conn, columns=columns, **span)
    verdict.new += batch.sessions.height - len(there)
    if verdict.on_duplicate == "error":
        ids = dict(batch.sessions.select("row_number", "external_session_id").iter_rows())
        taken = [Reject(n, Message.SAME_KEY.about(ids[n]), batch.block.values_of(n), True) for n, _ in there]
        return sorted([*batch.rejects, *taken])
    wanted = verdict.add_there(there)
    if wanted:
        for row, session_id, column, *values in STATEMENTS.change_values(conn, rows=list(wanted)):
            if column in wanted[row]:
                before, after = (value if value is None else shown_text(value) for value in values)
                verdict.changes[column].examples.append(Example(row, session_id, before, after))
    return batch.rejects
