"""A full dry run: validates every row against the current database and writes nothing to it."""

from collections.abc import Callable, Iterator

import psycopg

from dagster_backfills.domains.kintell.after.error_file import as_bytes, error_csv, write_file
from dagster_backfills.domains.kintell.file.dialect import PlainCsv, ReadOptions
from dagster_backfills.domains.kintell.file.files import open_file
from dagster_backfills.domains.kintell.file.header import Header, open_table
from dagster_backfills.domains.kintell.file.reader import read_blocks
from dagster_backfills.domains.kintell.importing.writer import stage
from dagster_backfills.domains.kintell.rows.batches import Batch, prepare
from dagster_backfills.domains.kintell.rows.messages import Message, Reject, shown_text
from dagster_backfills.domains.kintell.rows.preview import Example, ImportPreview
from dagster_backfills.domains.kintell.rows.seen import SeenIds
from dagster_backfills.domains.kintell.rows.users import Users
from dagster_backfills.domains.kintell.statements import STATEMENTS


def validate(
    conn: psycopg.Connection,
    url: str,
    allowed: list[str],
    *,
    on_duplicate: str = "skip",
    read_as: ReadOptions | None = None,
    error_file: str = "",
    on_progress: Callable[[int, int], None] = lambda done, size: None,
) -> ImportPreview:
    """Validate the whole file. `on_progress` receives bytes read and the total. `error_file` is where the rejected rows
    are written, a path or an fsspec URL. Raises `FileError` if the file can't be read."""
    preview = ImportPreview(on_duplicate=on_duplicate)
    source, header = open_table(conn, open_file(url, allowed), read_as or ReadOptions())
    preview.recognized = str(header)
    rejects = _rejects(conn, preview, source, header, on_progress)
    if error_file:
        # Always with a byte-order mark: whether it is needed is only known at the end.
        write_file(error_file, as_bytes(error_csv(header, rejects), mark=True))
    for _ in rejects:
        pass
    return preview


def _rejects(
    conn: psycopg.Connection,
    preview: ImportPreview,
    source: PlainCsv,
    header: Header,
    on_progress: Callable[[int, int], None],
) -> Iterator[Reject]:
    """Validate the file block by block and count the results in `preview`. Yields the rejected rows."""
    users, seen = Users(conn), SeenIds()
    STATEMENTS.create_stage(conn)
    for block in read_blocks(source, header, header.data_offset, 1, 20_000):
        # Read-only transactions may still write to a temporary table, which is emptied on commit.
        with conn.transaction():
            conn.execute("set transaction read only")
            rejects = _compare(conn, preview, prepare(block, users, seen), list(header.positions))
        preview.total += len(block)
        preview.add_rejected((number, message) for number, message, *_ in rejects)
        yield from rejects
        on_progress(block.byte_to, source.size)


def _compare(
    conn: psycopg.Connection, preview: ImportPreview, batch: Batch, columns: list[str]
) -> list[Reject]:
    """Compare the batch with existing sessions and count the results. Returns its rejected rows."""
    stage(conn, batch.sessions)
    span = {"first_row": batch.block.first_row, "last_row": batch.block.last_row}
    existing = STATEMENTS.staged_changes(conn, columns=columns, **span)
    preview.new += batch.sessions.height - len(existing)
    if preview.on_duplicate == "error":
        ids = dict(batch.sessions.select("row_number", "external_session_id").iter_rows())
        duplicates = [
            Reject(n, Message.EXISTING_ID.with_value(ids[n]), batch.block.values_of(n), True)
            for n, _ in existing
        ]
        return sorted([*batch.rejects, *duplicates])
    examples = preview.add_existing(existing)
    if examples:
        for row, session_id, column, *values in STATEMENTS.change_values(conn, rows=list(examples)):
            if column in examples[row]:
                before, after = (value if value is None else shown_text(value) for value in values)
                preview.changes[column].examples.append(Example(row, session_id, before, after))
    return batch.rejects
