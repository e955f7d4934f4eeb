"""Classifies errors by where they arose and then by SQLSTATE, for batches, imported rows and jobs alike.

`Refusals` ends a run after too many consecutive failures. Not here: the failure ledger (`ledger`), retries (`session`).
"""

import re
from dataclasses import dataclass
from enum import Enum

import psycopg

from dagster_backfills.engine.outcome import Counts
from dagster_backfills.errors import UserError


class ErrorClass(Enum):
    """How to handle an error."""

    DATA = "data"  # some unit of the batch is bad: bisect the batch to isolate it
    CONFLICT = "conflict"  # another transaction interfered: retry the batch
    CONNECTION = "connection"  # the server is away: reconnect and retry the batch
    FATAL = "fatal"  # every batch would fail the same way: stop


class CostsConnectionError(Exception):
    """A batch lost the connection on every attempt, although the server could be reached again each time."""


class NullUnitError(ValueError):
    """A row's unit is null. Slices select rows by their units, so no slice would write the row."""

    def __init__(self, asset: str) -> None:
        super().__init__(f"Asset {asset} returns a null unit")


_DATA_ERRORS = (ValueError, ArithmeticError, TypeError, LookupError, CostsConnectionError)
_CONFLICT = {"40001", "40P01"}
_CONNECTION = {"57P01", "57P02", "57P03", "57P05", "25P03", "25P04", "53300"}
# The server itself is in trouble (full disk, read-only standby, unreadable files), even if a trigger hit it first.
_SERVER_TROUBLE = ("53100", "25006", "58", "XX001", "XX002", "F0")
# Our own statement or session is at fault: a missing table, privilege or prepared statement. Statements inside a
# row's trigger function are not ours.
_STATEMENT_FAULT = ("42", "28", "3D", "3F", "26", "34", "0B", "0L", "0P", "25", "2D", "3B")
# Ordinary reasons to reject a row. For any other class the engine checks whether the row is really the cause.
_ORDINARY = ("21", "22", "23", "40", "44", "55P03", "57014", "P0")

# A line of the error context that names a function in any language. Data in a context always follows a quote.
# The engine's own functions don't count: they are called once per batch, not once per row.
_FUNCTION = re.compile(r'^(?:[^\n"“„«»]*\bPL/\w+(?! function backfill\.)|SQL function )', re.MULTILINE)


def classify(error: BaseException) -> ErrorClass:
    """Returns how to handle an error of a statement or Python function that processed one or more items.

    The rules, in order:

    1. An error that ends the session (FATAL or PANIC severity, or no response at all) is CONNECTION.
    2. A deadlock or serialization failure is CONFLICT, whoever raised it. After the retries it counts as DATA.
    3. An error raised by `RAISE` in PL/pgSQL is DATA, whatever its SQLSTATE.
    4. Server trouble (full disk, read-only, unreadable files) and a cancelled statement are FATAL.
       A foreign table's failure to connect is CONNECTION.
    5. Any other error inside a function is DATA, even a missing table or privilege: the function ran for a row.
    6. A fault of our own statement (class 42, a missing database or schema, a transaction's state) is FATAL.
    7. Everything else is DATA: constraints, casts, row-level security, size and memory limits, timeouts, unsupported
       features; also ValueError, ArithmeticError, TypeError and LookupError raised in Python.

    A caller that isolates DATA errors must also limit them, because a trigger may reject every row. The engine's limit
    is `max_failures_in_a_row`.
    """
    if isinstance(error, UserError):
        return ErrorClass.FATAL
    if not isinstance(error, psycopg.Error):
        is_data = isinstance(error, _DATA_ERRORS) or type(error).__module__.startswith("pandera")
        return ErrorClass.DATA if is_data else ErrorClass.FATAL
    if error.sqlstate is None:
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return ErrorClass.CONNECTION if lost else ErrorClass.DATA
    return _classify_response(error.sqlstate, error.diag)


def _classify_response(state: str, diagnostic: psycopg.errors.Diagnostic) -> ErrorClass:
    if diagnostic.severity_nonlocalized in ("FATAL", "PANIC"):
        return ErrorClass.CONNECTION
    if state in _CONFLICT:
        return ErrorClass.CONFLICT
    if diagnostic.source_function == "exec_stmt_raise":
        return ErrorClass.DATA
    if state in _CONNECTION or state.startswith("08"):
        return ErrorClass.CONNECTION
    if state.startswith(_SERVER_TROUBLE) or _is_cancelled(state, diagnostic):
        return ErrorClass.FATAL
    if _FUNCTION.search(diagnostic.context or "") or _is_caused_by_value(state, diagnostic):
        return ErrorClass.DATA
    return ErrorClass.FATAL if state.startswith(_STATEMENT_FAULT) else ErrorClass.DATA


def _is_cancelled(state: str, diagnostic: psycopg.errors.Diagnostic) -> bool:
    """Whether a user cancelled the statement. A timeout has the same SQLSTATE and a different message."""
    return state == "57014" and "user request" in (diagnostic.message_primary or "")


def _is_caused_by_value(state: str, diagnostic: psycopg.errors.Diagnostic) -> bool:
    """Class 42 errors that a row causes: a row-level security check, or a value with bad syntax (a tsquery, say)."""
    if state == "42501":
        return diagnostic.source_function == "ExecWithCheckOptions"
    return state == "42601" and diagnostic.statement_position is None


def is_unusual(error: BaseException) -> bool:
    """Whether an error classified as DATA may be caused by the statement itself or by a broken trigger."""
    if isinstance(error, psycopg.Error):
        return error.sqlstate is not None and not error.sqlstate.startswith(_ORDINARY)
    return isinstance(error, CostsConnectionError)


def describe(error: BaseException) -> tuple[str, str | None, str]:
    """Returns an error's class name, SQLSTATE and message (with the database's detail) for the failure ledger."""
    if isinstance(error, psycopg.Error):
        diagnostic = error.diag
        message = diagnostic.message_primary or str(error)
        if diagnostic.message_detail:
            message = f"{message} ({diagnostic.message_detail})"
        return type(error).__name__, error.sqlstate, message
    return type(error).__name__, None, str(error)


def is_lost(error: BaseException) -> bool:
    """Whether the server is away. Unwraps psycopg errors that SQLAlchemy raises while connecting."""
    original = getattr(error, "orig", None) or error
    return classify(original) is ErrorClass.CONNECTION


def can_bisect(error: BaseException) -> bool:
    """Whether to bisect a batch that raised this error, to isolate the unit at fault."""
    return classify(error) in (ErrorClass.DATA, ErrorClass.CONFLICT)


@dataclass
class Refusals:
    """Counts consecutive failures with the same SQLSTATE and no row written between them.

    Ordinary errors count only until the run has written a row, because many adjacent rows may break one constraint.
    Other errors always count: a trigger that loses a privilege rejects every row from then on.

    limit: the number of consecutive failures that ends the run; 0 for no limit.
    """

    limit: int
    count: int = 0
    kind: tuple[str, str | None] = ("", None)
    written: bool = False

    def wrote(self, counts: Counts) -> None:
        """Call after each committed batch, with its counts."""
        if counts.rows or counts.deleted:
            self.count, self.written = 0, True

    def failed(self, error: BaseException) -> None:
        """Call after each entry in the failure ledger. Raises UserError if the limit is reached."""
        name, state, message = describe(error)
        self.count = self.count + 1 if self.kind == (name, state) else 1
        self.kind = (name, state)
        if self.limit and self.count >= self.limit and (is_unusual(error) or not self.written):
            raise UserError(
                f"{self.count:,} failures in a row, all {name}{f' (SQLSTATE {state})' if state else ''}, and no row "
                f"was written in between. The last one: {message}",
                hint="See the failure ledger. Fix the cause and run again, or raise max_failures_in_a_row.",
            ) from error
