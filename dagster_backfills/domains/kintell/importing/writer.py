"""One batch, one transaction: sessions, rejected rows, events and the job's position. Not here: what goes in."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from uuid import UUID

import polars as pl
import psycopg
from polars import selectors

from dagster_backfills.domains.kintell.importing.claims import Claim
from dagster_backfills.domains.kintell.rows.batches import Batch
from dagster_backfills.domains.kintell.rows.messages import Message, Reject
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.engine.failures import ErrorClass, classify, describe
from dagster_backfills.errors import UserError

MAX_REFUSED = (
    500  # rows in a row that Postgres refuses, before the table and not the rows are held to be at fault
)


class OutOfTurn(Exception):
    """The batch before this one did not commit, so this one may not either."""


class AllRefused(UserError):
    """Postgres refuses row after row: a trigger or constraint of the table's, rather than the rows."""


@dataclass
class Written:
    """What became of a batch, and the job's status after it."""

    inserted: int = 0
    updated: int = 0
    skipped: int = 0
    failed: int = 0
    status: str = "running"
    processed_rows: int = 0
    failed_rows: int = 0
    refused: list[Reject] = field(default_factory=list)

    def add(self, part: "Written") -> None:
        """Take in what became of a part of the batch."""
        self.inserted += part.inserted
        self.updated += part.updated
        self.skipped += part.skipped
        self.refused += part.refused

    @property
    def counts(self) -> dict[str, int]:
        """The batch's part of the account."""
        return {name: getattr(self, name) for name in ("inserted", "updated", "skipped", "failed")}


@dataclass(frozen=True)
class ImportRules:
    """How an import deals with duplicates and errors. `columns` are those of the file."""

    on_duplicate: str
    columns: frozenset[str]
    max_errors: int | None = None
    max_error_ratio: float | None = None
    again: bool = False  # a replay: a row that was refused for its id is not its own duplicate

    @property
    def bounded(self) -> bool:
        """Whether the job itself stops at too many errors."""
        return self.max_errors is not None or self.max_error_ratio is not None


def refuses_rows(error: BaseException) -> bool:
    """Whether rows of the batch are at fault: each of them is then to stand alone. Waiting for a lock too long is
    nobody's fault."""
    return classify(error) is ErrorClass.DATA and not isinstance(error, psycopg.errors.LockNotAvailable)


def write_import_batch(
    conn: psycopg.Connection,
    claim: Claim,
    batch: Batch,
    rules: ImportRules,
    in_turn: Callable[[], None],
    *,
    careful: bool,
) -> Written:
    """Write a batch of the file and move the job's checkpoint past it, in the transaction that is open; `in_turn`
    returns when those before it are committed.

    Raises `ClaimLost` where the job is no longer this attempt's, `OutOfTurn` where the batch before failed, and
    Postgres's own errors. With `careful`, a row that Postgres refuses is rejected alone.
    """
    began = time.monotonic()
    written = store_sessions(conn, claim.job, batch, rules, careful=careful)
    written.failed = len(batch.rejects) + len(written.refused)
    _store_rejects(conn, claim.job, [*batch.rejects, *written.refused])
    in_turn()
    moved = STATEMENTS.move_checkpoint(
        conn,
        job=claim.job,
        attempt=claim.attempt,
        rows=len(batch.block),
        byte_from=batch.block.byte_from,
        byte_to=batch.block.byte_to,
        first_row=batch.block.first_row,
        last_row=batch.block.last_row,
        max_errors=rules.max_errors,
        max_error_ratio=rules.max_error_ratio,
        seconds=time.monotonic() - began,
        **written.counts,
    )
    if moved is None:
        raise claim.why_lost(conn) or OutOfTurn(
            f"rows from {batch.block.first_row} on wait for those before them"
        )
    written.status, written.processed_rows, written.failed_rows = moved
    return written


def store_sessions(
    conn: psycopg.Connection, job: UUID, batch: Batch, rules: ImportRules, *, careful: bool
) -> Written:
    """Insert the batch's sessions with their events, and settle those that are there already.

    With `careful` in halves and halves of halves, each under a savepoint, until the rows that Postgres refuses stand
    alone. Raises `AllRefused` where those are too many in a row, and nothing else bounds them.
    """
    written, pieces, in_a_row = Written(), [batch.sessions], 0
    if careful:
        conn.execute("set constraints all immediate")  # what waits for the commit would fail all of it
    while pieces:
        rows = pieces.pop()
        if not rows.height:
            continue
        try:
            with conn.transaction() if careful else nullcontext():
                written.add(_settle(conn, job, rules, batch, rows))
            in_a_row = 0
        except psycopg.Error as error:
            if not careful or not refuses_rows(error):
                raise
            if rows.height > 1:
                middle = rows.height // 2
                pieces += [rows[middle:], rows[:middle]]
                continue
            in_a_row, row, message = in_a_row + 1, rows["row_number"].item(), describe(error)[2]
            if in_a_row > MAX_REFUSED and not rules.bounded:
                raise AllRefused(
                    f"Postgres refuses one row after another, {MAX_REFUSED} up to row {row}: {message}",
                    "Mend the trigger or constraint and go on; --max-errors N has them rejected one by one.",
                ) from error
            written.refused.append(_refusal(batch, row, message))
    return written


def stage(conn: psycopg.Connection, rows: pl.DataFrame) -> None:
    """COPY rows into the connection's temporary table, to the end of the transaction. Binary columns are UUIDs."""
    text = rows.with_columns(selectors.binary().bin.encode("hex")).write_csv(include_header=False)
    with conn.cursor().copy(STATEMENTS.copy_stage.sql) as copy:
        copy.write(text)


def _settle(
    conn: psycopg.Connection, job: UUID, rules: ImportRules, batch: Batch, frame: pl.DataFrame
) -> Written:
    """Insert those rows that are new, and deal with the others as the rules say."""
    stage(conn, frame)
    numbers = frame["row_number"]
    span = {"job": job, "first_row": numbers.item(0), "last_row": numbers.item(-1)}
    inserted = STATEMENTS.insert_sessions(conn, **span)
    if inserted == frame.height:
        return Written(inserted=inserted)
    there = list(STATEMENTS.staged_but_not_inserted(conn, **span))
    others = {session_id for _, session_id, own in there if not own}
    if not (rules.again and rules.on_duplicate == "error"):
        others = {found for (found,) in STATEMENTS.claim_ids(conn, job=job, ids=sorted(others))}
    refused = [_refusal(batch, n, Message.TWICE.about(i)) for n, i, _ in there if i not in others]
    rows = [n for n, session_id, _ in there if session_id in others]
    if rules.on_duplicate == "error":
        refused += [_refusal(batch, n, Message.SAME_KEY.about(i)) for n, i, _ in there if i in others]
        return Written(inserted=inserted, refused=refused)
    updated = 0
    if rules.on_duplicate == "update":
        updated = len(list(STATEMENTS.update_sessions(conn, job=job, rows=rows, columns=list(rules.columns))))
    return Written(inserted=inserted, updated=updated, skipped=len(rows) - updated, refused=refused)


def _refusal(batch: Batch, row: int, message: str) -> Reject:
    return Reject(row, message.replace("\0", ""), batch.block.values_of(row), True)


def _store_rejects(conn: psycopg.Connection, job: UUID, rejects: list[Reject]) -> None:
    if not rejects:
        return
    with conn.cursor().copy(STATEMENTS.copy_row_errors.sql) as copy:
        copy.set_types(["uuid", "int8", "text", "text[]", "bool"])
        for reject in rejects:
            copy.write_row((job, *reject))
