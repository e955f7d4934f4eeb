"""A full dry run: every rule on every row, against the database as it is, and nothing written to it."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO

import polars as pl
import psycopg

from dagster_backfills.domains.kintell.after.error_file import RejectedRow, error_lines
from dagster_backfills.domains.kintell.file.dialect import ReadAs, to_plain_csv
from dagster_backfills.domains.kintell.file.files import open_file
from dagster_backfills.domains.kintell.file.mapping import mapped_header
from dagster_backfills.domains.kintell.file.reader import read_blocks
from dagster_backfills.domains.kintell.importing.writer import stage, with_positions
from dagster_backfills.domains.kintell.rows.batches import Batch, prepare
from dagster_backfills.domains.kintell.rows.seen import SeenIds
from dagster_backfills.domains.kintell.rows.users import Users
from dagster_backfills.domains.kintell.statements import statements

SHOWN_ERRORS = 100
SHOWN_EXAMPLES = 3


@dataclass
class ImportPreview:
    """What an import of the file would do. `kinds` counts messages without their values; `errors` are the first
    hundred rejected rows (row, message); `missing` the roles by address of users that do not exist.

    Of the `duplicates`, sessions that are there, `changed` differ: `changes` counts them by column, and `examples` has
    the first, each with its id, what is there, and what the file has.
    """

    total: int = 0
    new: int = 0
    duplicates: int = 0
    changed: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[list[str]]] = field(default_factory=dict)
    failed: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    errors: list[tuple[int, str]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    recognized: str = ""
    seconds: float = 0.0

    def add(self, batch: Batch, existing: set[str], on_duplicate: str) -> list[RejectedRow]:
        """Count a batch; returns its rejected rows as the error file has them."""
        rejected = [(r.row_number, r.message, r.values, r.replayable) for r in batch.rejects]
        if on_duplicate == "error":
            ids = batch.sessions.select("row_number", "external_session_id").iter_rows()
            text = "Duplicate key value violates unique constraint: "
            rejected += [(n, text + i, batch.values_of(n), True) for n, i in ids if i in existing]
            rejected.sort(key=lambda row: row[0])
        else:
            self.duplicates += len(existing)
        self.total += batch.rows
        self.failed += len(rejected)
        self.new += batch.sessions.height - len(existing)
        for number, message, *_ in rejected:
            self.kinds.update({kind_of(part) for part in message.split("; ")})
            if len(self.errors) < SHOWN_ERRORS:
                self.errors.append((number, message))
        return rejected

    def compare(self, conn: psycopg.Connection, batch: Batch, existing: set[str], columns: list[str]) -> None:
        """Count what differs in the sessions that are there."""
        there = with_positions(batch).filter(pl.col("external_session_id").is_in(sorted(existing)))
        if not there.height:
            return
        conn.execute("delete from pg_temp.import_stage")
        stage(conn, there)
        found = list(statements().differing_values(conn, columns=columns))
        self.changed += found[0][3] if found else 0
        for column, rows, examples, _ in found:
            self.changes[column] += rows
            shown = self.examples.setdefault(column, [])
            shown += examples[: SHOWN_EXAMPLES - len(shown)]


def kind_of(message: str) -> str:
    """A message without the value that it quotes."""
    return message.split(": ", 1)[0]


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
    began, verdict = time.monotonic(), ImportPreview()
    read_as = read_as or ReadAs()
    source = to_plain_csv(open_file(url, allowed), read_as)
    header = mapped_header(conn, source, read_as)
    verdict.recognized = str(header)
    statements().create_stage(conn)
    with conn.transaction():
        conn.execute("set transaction read only")
        users, seen = Users(conn), SeenIds()
        if error_file:
            error_file.writelines(error_lines(header, []))
        for block in read_blocks(source, header, header.data_offset, 1, 20_000):
            batch = prepare(block, users, seen)
            ids = batch.sessions["external_session_id"].to_list()
            existing = {row[0] for row in statements().existing_ids(conn, ids=ids)}
            rejected = verdict.add(batch, existing, on_duplicate)
            if on_duplicate != "error":
                verdict.compare(conn, batch, existing, sorted(header.positions))
            for reject in batch.rejects:
                _note_missing(reject.message, verdict.missing)
            if error_file and rejected:
                _, *lines = "".join(error_lines(header, rejected)).split("\n", 1)
                error_file.writelines(lines)
            on_progress(block.byte_to, source.size)
    verdict.seconds = time.monotonic() - began
    return verdict


def _note_missing(message: str, missing: dict[str, str]) -> None:
    for part in message.split("; "):
        for role in ("participant", "volunteer"):
            if part.startswith(f"{role.capitalize()} not found: "):
                missing.setdefault(part.split(": ", 1)[1], role)
