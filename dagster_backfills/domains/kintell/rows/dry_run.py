"""A full dry run: every rule on every row, against the database as it is, and nothing written to it."""

import time
from collections.abc import Callable
from typing import IO

import psycopg

from dagster_backfills.domains.kintell.after.error_file import RejectedRow, error_lines
from dagster_backfills.domains.kintell.file.dialect import ReadAs, to_plain_csv
from dagster_backfills.domains.kintell.file.files import open_file
from dagster_backfills.domains.kintell.file.mapping import mapped_header
from dagster_backfills.domains.kintell.file.reader import read_blocks
from dagster_backfills.domains.kintell.importing.writer import copy_stage, with_positions
from dagster_backfills.domains.kintell.rows.batches import Batch, prepare
from dagster_backfills.domains.kintell.rows.messages import Message, shown_text
from dagster_backfills.domains.kintell.rows.seen import SeenIds
from dagster_backfills.domains.kintell.rows.users import Users
from dagster_backfills.domains.kintell.rows.verdict import Example, ImportPreview
from dagster_backfills.domains.kintell.statements import statements


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
    read_as = read_as or ReadAs()
    source = to_plain_csv(open_file(url, allowed), read_as)
    header = mapped_header(conn, source, read_as)
    verdict.recognized = str(header)
    users, seen = Users(conn), SeenIds()
    statements().create_stage(conn)
    if error_file:
        error_file.writelines(error_lines(header, []))
    for block in read_blocks(source, header, header.data_offset, 1, 20_000):
        # The connection's temporary table is all that a batch writes to, and it is empty after it.
        with conn.transaction():
            conn.execute("set transaction read only")
            batch = prepare(block, users, seen)
            rejected = _compare(conn, verdict, batch, list(header.positions))
        verdict.total += len(block)
        verdict.add_rejected((number, message) for number, message, *_ in rejected)
        if error_file and rejected:
            _, *lines = "".join(error_lines(header, rejected)).split("\n", 1)
            error_file.writelines(lines)
        on_progress(block.byte_to, source.size)
    verdict.seconds = time.monotonic() - began
    return verdict


def _compare(
    conn: psycopg.Connection, verdict: ImportPreview, batch: Batch, columns: list[str]
) -> list[RejectedRow]:
    """Count the batch against the sessions that are there. Returns its rejected rows, as the error file has them."""
    rejected: list[RejectedRow] = [(r.row_number, r.message, r.values, r.replayable) for r in batch.rejects]
    there = _changes(conn, batch, columns)
    verdict.new += batch.sessions.height - len(there)
    if verdict.on_duplicate == "error":
        ids = dict(batch.sessions.select("row_number", "external_session_id").iter_rows())
        rejected += [(n, Message.SAME_KEY.about(ids[n]), batch.block.values_of(n), True) for n, _ in there]
        return sorted(rejected, key=lambda row: row[0])
    wanted = verdict.add_there(there)
    if wanted:
        for row, session_id, column, *values in statements().change_values(conn, rows=list(wanted)):
            if column in wanted[row]:
                before, after = (value if value is None else shown_text(value) for value in values)
                verdict.changes[column].examples.append(Example(row, session_id, before, after))
    return rejected


def _changes(conn: psycopg.Connection, batch: Batch, columns: list[str]) -> list[tuple[int, list[str]]]:
    """The rows whose sessions are there, and the columns in which they differ."""
    if not batch.sessions.height:
        return []
    copy_stage(conn, with_positions(batch))
    span = {"first_row": batch.block.first_row, "last_row": batch.block.last_row}
    return list(statements().staged_changes(conn, columns=columns, **span))
