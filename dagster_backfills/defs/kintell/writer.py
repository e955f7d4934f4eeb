"""One batch, one transaction: sessions, rejected rows, events and the job's position. Not here: what goes in."""

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import psycopg

from dagster_backfills.defs.kintell.batches import Batch, Reject, rising_uuids
from dagster_backfills.defs.kintell.claims import Claim
from dagster_backfills.defs.kintell.copybinary import copy_frame
from dagster_backfills.defs.kintell.new_sessions import copy_new, existing
from dagster_backfills.defs.kintell.rules import TWICE, shown_text
from dagster_backfills.defs.kintell.statements import statements
from dagster_backfills.defs.kintell.users import keep_users

if TYPE_CHECKING:
    from uuid import UUID

    import polars as pl

SAME_KEY = "Duplicate key value violates unique constraint: "
ROW_ERRORS = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.RaiseException)


class OutOfTurn(Exception):
    """The batch before this one did not commit, so this one may not either."""


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


@dataclass(frozen=True)
class Rules:
    """How an import deals with duplicates and errors. `columns` are those of the file."""

    on_duplicate: str
    columns: frozenset[str]
    max_errors: int | None = None
    max_error_ratio: float | None = None
    again: bool = False  # a replay: a row that was refused for its id is not its own duplicate


class Turns:
    """Batches may be written side by side; they commit in order. A batch's number is its place in the order."""

    def __init__(self) -> None:
        self._begun: dict[int, threading.Event] = {}
        self._guard = threading.Lock()

    def _event(self, number: int) -> threading.Event:
        with self._guard:
            return self._begun.setdefault(number, threading.Event())

    def begun(self, number: int) -> None:
        """The batch has its place, or never will: whoever waits for it may go on."""
        self._event(number).set()

    def begin(self, conn: psycopg.Connection, job: "UUID", number: int) -> None:
        """To be called first in the batch's transaction, which holds its place until it ends."""
        statements().lock_batch(conn, job=str(job), number=number)
        self.begun(number)

    def wait(self, conn: psycopg.Connection, job: "UUID", number: int) -> None:
        """Until the batch before has ended. The waiting is Postgres's, so that it sees any deadlock."""
        if number == 0:
            return
        self._event(number - 1).wait()
        statements().await_batch(conn, job=str(job), number=number - 1)
        with self._guard:
            self._begun.pop(number - 2, None)


def write_import_batch(
    conn: psycopg.Connection,
    claim: Claim,
    batch: Batch,
    rules: Rules,
    turns: Turns,
    number: int,
    *,
    careful: bool,
) -> Written:
    """Write a batch of the file and move the job's checkpoint past it, all in one transaction.

    Raises `ClaimLost` where the job is no longer this attempt's, `OutOfTurn` where the batch before failed, and
    Postgres's own errors. With `careful`, a row that Postgres refuses is rejected alone.
    """
    began = time.monotonic()
    with conn.transaction():
        turns.begin(conn, claim.job, number)
        written = store_sessions(conn, claim.job, batch, rules, careful=careful)
        written.failed = len(batch.rejects) + len(written.refused)
        _store_rejects(conn, claim.job, [*batch.rejects, *written.refused])
        turns.wait(conn, claim.job, number)
        moved = statements().move_checkpoint(
            conn,
            job=claim.job,
            attempt=claim.attempt,
            rows=batch.rows,
            inserted=written.inserted,
            updated=written.updated,
            skipped=written.skipped,
            failed=written.failed,
            byte_from=batch.byte_from,
            byte_to=batch.byte_to,
            first_row=batch.first_row,
            max_errors=rules.max_errors,
            max_error_ratio=rules.max_error_ratio,
        )
        if moved is None:
            raise claim.why_lost(conn) or OutOfTurn(
                f"rows from {batch.first_row} on wait for those before them"
            )
        add_batch(conn, claim, batch, written, time.monotonic() - began)
    status, processed, failed = moved
    return replace(written, status=status, processed_rows=processed, failed_rows=failed)


def add_batch(conn: psycopg.Connection, claim: Claim, batch: Batch, written: Written, seconds: float) -> None:
    """The batch's own line in the account."""
    statements().add_batch(
        conn,
        job=claim.job,
        activity=claim.activity,
        attempt=claim.attempt,
        first_row=batch.first_row,
        last_row=batch.last_row,
        byte_from=batch.byte_from,
        byte_to=batch.byte_to,
        inserted=written.inserted,
        updated=written.updated,
        skipped=written.skipped,
        failed=written.failed,
        seconds=seconds,
    )


def store_sessions(
    conn: psycopg.Connection, job: "UUID", batch: Batch, rules: Rules, *, careful: bool
) -> Written:
    """Insert the batch's sessions with their events, and settle those that are there already."""
    if not batch.sessions.height:
        return Written()
    rows = _with_events(batch)
    if careful:
        stage(conn, rows)
        return _settle_carefully(conn, job, rules, batch)
    copied = 0
    if keep_users(conn, batch.removals):
        there = existing(conn, rows["external_session_id"])
        new = rows.filter(~there)
        copied, rows = copy_new(conn, job, new), rows.filter(there)
        if not rows.height:
            return Written(inserted=copied)
    stage(conn, rows)
    written = _settle(conn, job, rules, batch, rows["row_number"])
    written.inserted += copied
    return written


def _with_events(batch: Batch) -> "pl.DataFrame":
    """The batch's sessions with the id and the place of each one's event."""
    import polars as pl

    return batch.sessions.select(
        "row_number",
        "id",
        rising_uuids(batch.sessions.height).alias("event_id"),
        (pl.int_range(pl.len(), dtype=pl.Int64) + batch.position).alias("event_position"),
        pl.exclude("row_number", "id"),
    )


def _settle_carefully(conn: psycopg.Connection, job: "UUID", rules: Rules, batch: Batch) -> Written:
    """The staged rows in halves and halves of halves, until those that Postgres refuses stand alone."""
    written = Written()
    ranges = [(batch.first_row, batch.last_row)]
    while ranges:
        first, last = ranges.pop()
        numbers = batch.sessions["row_number"]
        numbers = numbers.filter(numbers.is_between(first, last))
        if not len(numbers):
            continue
        try:
            with conn.transaction():
                part = _settle(conn, job, rules, batch, numbers)
        except ROW_ERRORS as error:
            if first == last:
                part = Written(refused=[_refusal(batch, first, str(error.diag.message_primary or error))])
            else:
                middle = (first + last) // 2
                ranges += [(middle + 1, last), (first, middle)]
                continue
        written.inserted += part.inserted
        written.updated += part.updated
        written.skipped += part.skipped
        written.refused += part.refused
    return written


def stage(conn: psycopg.Connection, rows: "pl.DataFrame") -> None:
    """Rows in the connection's temporary table."""
    statements().create_stage(conn)
    copy_frame(conn, statements().copy_stage.sql, rows)


def _settle(
    conn: psycopg.Connection, job: "UUID", rules: Rules, batch: Batch, numbers: "pl.Series"
) -> Written:
    """Staged rows, by their numbers: insert those that are new, deal with the others as the rules say."""
    sql, span = statements(), {"job": job, "first_row": numbers.item(0), "last_row": numbers.item(-1)}
    inserted = sql.insert_sessions(conn, **span)
    if inserted == len(numbers):
        return Written(inserted=inserted)
    there = list(sql.staged_but_not_inserted(conn, **span))
    others = {session_id for _, session_id, own in there if not own}
    if not (rules.again and rules.on_duplicate == "error"):
        others = {found for (found,) in sql.claim_ids(conn, job=job, ids=sorted(others))}
    refused = [_refusal(batch, n, f"{TWICE}{shown_text(i)}") for n, i, _ in there if i not in others]
    rows = [n for n, session_id, _ in there if session_id in others]
    if rules.on_duplicate == "error":
        refused += [_refusal(batch, n, SAME_KEY + i) for n, i, _ in there if i in others]
        return Written(inserted=inserted, refused=refused)
    updated = 0
    if rules.on_duplicate == "update":
        has = {f"has_{name}": name in rules.columns for name in ("rating", "feedback_text", "language_level")}
        updated = len(list(sql.update_sessions(conn, job=job, rows=rows, **has)))
    return Written(inserted=inserted, updated=updated, skipped=len(rows) - updated, refused=refused)


def _refusal(batch: Batch, row: int, message: str) -> Reject:
    return Reject(row, message.replace("\0", ""), batch.values_of(row), True)


def _store_rejects(conn: psycopg.Connection, job: "UUID", rejects: list[Reject]) -> None:
    if not rejects:
        return
    with conn.cursor().copy(statements().copy_row_errors.sql) as copy:
        copy.set_types(["uuid", "int8", "text", "text[]", "bool"])
        for reject in rejects:
            copy.write_row((job, reject.row_number, reject.message, reject.values, reject.replayable))
