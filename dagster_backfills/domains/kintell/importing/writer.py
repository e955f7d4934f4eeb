"""Writes one batch in one transaction: sessions, rejected rows, events and the checkpoint. Not here: validation."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from uuid import UUID

import polars as pl
import psycopg
from polars import selectors

from dagster_backfills.domains.kintell.importing.claims import Claim
from dagster_backfills.domains.kintell.importing.jobs import ImportJob, Options
from dagster_backfills.domains.kintell.importing.retries import OutOfTurn
from dagster_backfills.domains.kintell.rows.batches import Batch
from dagster_backfills.domains.kintell.rows.messages import Message, Reject
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.engine.failures import ErrorClass, classify, describe
from dagster_backfills.errors import UserError

MAX_REFUSED = 500  # consecutive rows rejected by Postgres, after which the table is assumed to be at fault


class AllRefused(UserError):
    """Postgres rejects row after row: a trigger or constraint on the table is at fault, not the rows."""


@dataclass
class BatchResult:
    """The counts of a batch, the rows that Postgres rejected, and the job's status after the batch."""

    inserted: int = 0
    updated: int = 0
    skipped: int = 0
    failed: int = 0
    status: str = "running"
    processed_rows: int = 0
    failed_rows: int = 0
    refused: list[Reject] = field(default_factory=list)

    def add(self, part: "BatchResult") -> None:
        """Add the result of a part of the batch."""
        self.inserted += part.inserted
        self.updated += part.updated
        self.skipped += part.skipped
        self.refused += part.refused

    @property
    def counts(self) -> dict[str, int]:
        """What the batch adds to the job's counters."""
        return {name: getattr(self, name) for name in ("inserted", "updated", "skipped", "failed")}


def is_row_error(error: BaseException) -> bool:
    """Whether the batch's data caused the error, so that its bad rows should be isolated. Not for a lock timeout."""
    return classify(error) is ErrorClass.DATA and not isinstance(error, psycopg.errors.LockNotAvailable)


def write_import_batch(
    conn: psycopg.Connection,
    claim: Claim,
    job: ImportJob,
    batch: Batch,
    options: Options,
    await_turn: Callable[[], None],
    *,
    isolate: bool,
) -> BatchResult:
    """Write a batch and move the job's checkpoint past it, in the open transaction. `await_turn` blocks until the
    previous batch has ended.

    Raises `ClaimLost` if this attempt no longer holds the job, `OutOfTurn` if the previous batch failed, and psycopg
    errors. With `isolate`, rows that Postgres rejects become rejected rows and the rest of the batch is written.
    """
    began = time.monotonic()
    result = store_sessions(conn, job, batch, isolate=isolate, limited=options.limits_errors)
    result.failed = len(batch.rejects) + len(result.refused)
    _store_rejects(conn, job.id, [*batch.rejects, *result.refused])
    await_turn()
    moved = STATEMENTS.move_checkpoint(
        conn,
        job=job.id,
        attempt=claim.attempt,
        rows=len(batch.block),
        byte_from=batch.block.byte_from,
        byte_to=batch.block.byte_to,
        first_row=batch.block.first_row,
        last_row=batch.block.last_row,
        seconds=time.monotonic() - began,
        **result.counts,
    )
    if moved is None:
        raise claim.why_lost(conn) or OutOfTurn(
            f"rows from {batch.block.first_row} on wait for the rows before them"
        )
    result.processed_rows, result.failed_rows = moved
    if reason := options.exceeded(result.processed_rows, result.failed_rows, job.total_rows):
        STATEMENTS.stop_job(conn, job=job.id, reason=reason)
        result.status = "failed"
    return result


def store_sessions(
    conn: psycopg.Connection,
    job: ImportJob,
    batch: Batch,
    *,
    isolate: bool,
    limited: bool = False,
    is_replay: bool = False,
) -> BatchResult:
    """Insert the batch's sessions with their events, and apply `on_duplicate` to sessions that already exist.

    With `isolate`, the batch is bisected, each part under a savepoint, until the rows that Postgres rejects are found.
    Raises `AllRefused` for too many of them in a row, unless the job's errors are `limited` otherwise.
    """
    result, pieces, in_a_row = BatchResult(), [batch.sessions], 0
    if isolate:
        conn.execute("set constraints all immediate")  # a deferred constraint would fail the whole commit
    while pieces:
        rows = pieces.pop()
        if not rows.height:
            continue
        try:
            with conn.transaction() if isolate else nullcontext():
                result.add(_store(conn, job, batch, rows, is_replay))
            in_a_row = 0
        except psycopg.Error as error:
            if not isolate or not is_row_error(error):
                raise
            if rows.height > 1:
                middle = rows.height // 2
                pieces += [rows[middle:], rows[:middle]]
                continue
            in_a_row, row, message = in_a_row + 1, rows["row_number"].item(), describe(error)[2]
            if in_a_row > MAX_REFUSED and not limited:
                raise AllRefused(
                    f"Postgres rejected {in_a_row} consecutive rows, up to row {row}: {message}",
                    "Fix the trigger or constraint and resume the job, or use --max-errors N to reject the rows.",
                ) from error
            result.refused.append(_reject(batch, row, message))
    return result


def stage(conn: psycopg.Connection, rows: pl.DataFrame) -> None:
    """COPY rows into the connection's temporary table, which is emptied on commit. Binary columns are UUIDs."""
    text = rows.with_columns(selectors.binary().bin.encode("hex")).write_csv(include_header=False)
    with conn.cursor().copy(STATEMENTS.copy_stage.sql) as copy:
        copy.write(text)


def _store(
    conn: psycopg.Connection, job: ImportJob, batch: Batch, frame: pl.DataFrame, is_replay: bool
) -> BatchResult:
    """Insert new rows, and apply `on_duplicate` to sessions that exist already."""
    stage(conn, frame)
    numbers = frame["row_number"]
    span = {"job": job.id, "first_row": numbers.item(0), "last_row": numbers.item(-1)}
    inserted = STATEMENTS.insert_sessions(conn, **span)
    if inserted == frame.height:
        return BatchResult(inserted=inserted)
    existing = list(STATEMENTS.staged_but_not_inserted(conn, **span))
    duplicates = {session_id for _, session_id, own in existing if not own}
    if not (is_replay and job.on_duplicate == "error"):  # a row rejected for its ID does not repeat itself
        claimed = STATEMENTS.claim_ids(conn, job=job.id, ids=sorted(duplicates))
        duplicates = {session_id for (session_id,) in claimed}
    refused = [
        _reject(batch, n, Message.REPEATED_ID.with_value(i)) for n, i, _ in existing if i not in duplicates
    ]
    rows = [n for n, session_id, _ in existing if session_id in duplicates]
    if job.on_duplicate == "error":
        refused += [
            _reject(batch, n, Message.EXISTING_ID.with_value(i)) for n, i, _ in existing if i in duplicates
        ]
        return BatchResult(inserted=inserted, refused=refused)
    updated = 0
    if job.on_duplicate == "update":
        columns = list(batch.block.header.positions)
        updated = STATEMENTS.update_sessions(conn, job=job.id, rows=rows, columns=columns)
    return BatchResult(inserted=inserted, updated=updated, skipped=len(rows) - updated, refused=refused)


def _reject(batch: Batch, row: int, message: str) -> Reject:
    return Reject(row, message.replace("\0", ""), batch.block.values_of(row), True)


def _store_rejects(conn: psycopg.Connection, job: UUID, rejects: list[Reject]) -> None:
    if not rejects:
        return
    with conn.cursor().copy(STATEMENTS.copy_row_errors.sql) as copy:
        copy.set_types(["uuid", "int8", "text", "text[]", "bool"])
        for reject in rejects:
            copy.write_row((job, *reject))
