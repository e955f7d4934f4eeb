"""Which error means what to a batch, an import's rows or a job: by where it arose, and by its SQLSTATE after that.

And how many in a row are still single units' own. Not here: how it is recorded (`ledger`) or repeated (`session`).
"""

import re
from dataclasses import dataclass
from enum import Enum

import psycopg

from dagster_backfills.engine.outcome import Counts
from dagster_backfills.errors import UserError


class ErrorClass(Enum):
    """What is to be done about an error."""

    DATA = "data"  # some unit of the batch is bad: bisect until it stands alone
    CONFLICT = "conflict"  # another transaction was in the way: the same batch again
    CONNECTION = "connection"  # the server is away: wait, connect, the same batch again
    FATAL = "fatal"  # every batch would fail alike: stop


class CostsConnectionError(Exception):
    """A batch lost the connection each time that it was tried, and the server was there again each time."""


_OF_DATA = (ValueError, ArithmeticError, TypeError, LookupError, CostsConnectionError)
_CONFLICT = {"40001", "40P01"}
_CONNECTION = {"57P01", "57P02", "57P03", "57P05", "25P03", "25P04", "53300"}
# A full disk, a standby, files that can't be read: the server's trouble, even where a trigger's statement met it.
_OF_SERVER = ("53100", "25006", "58", "XX001", "XX002", "F0")
# What our own statement or session lacks: a table, a right, a prepared statement. A function that a row's trigger
# calls has statements of its own.
_OURS = ("42", "28", "3D", "3F", "26", "34", "0B", "0L", "0P", "25", "2D", "3B")
# Classes that rows are refused with every day; of others the engine asks once more whether it is the row.
_EVERYDAY = ("21", "22", "23", "40", "44", "55P03", "57014", "P0")

# A line of an error's context that names a function in any language; data that a context quotes comes behind a quote.
# The engine's own functions don't count: they are called for a batch and not for a row.
_FUNCTION = re.compile(r'^(?:[^\n"“„«»]*\bPL/\w+(?! function backfill\.)|SQL function )', re.MULTILINE)


def classify(error: BaseException) -> ErrorClass:
    """What to do about an error of a statement, or of a Python rule, that was run for one or more items.

    For the engine's batches, the import's rows and the queue's jobs alike. In this order:

    1. An error that ends the session (its severity says so, or there is no answer at all) is CONNECTION.
    2. A deadlock or serialization failure is CONFLICT, whoever raised it: again, and then as DATA.
    3. What a function raises of its own accord (`RAISE` in PL/pgSQL) is DATA, whatever its SQLSTATE.
    4. The server's trouble (full disk, read-only, files) is FATAL, and so is a statement that somebody cancelled.
       A connection that a foreign table could not get is CONNECTION.
    5. Any other error within a function, a missing table or right among them, is DATA: it was called for a row.
    6. What our own statement lacks (class 42, a missing database or schema, a transaction's state) is FATAL.
    7. All else is DATA: constraints, casts, row-level security, limits of size and memory, time-outs, features that a
       value would need. So are ValueError, ArithmeticError, TypeError and LookupError of a Python rule.

    Whoever isolates DATA must also end: some triggers refuse every row. The engine stops after
    `max_failures_in_a_row`.
    """
    if isinstance(error, UserError):
        return ErrorClass.FATAL
    if not isinstance(error, psycopg.Error):
        of_data = isinstance(error, _OF_DATA) or type(error).__module__.startswith("pandera")
        return ErrorClass.DATA if of_data else ErrorClass.FATAL
    if error.sqlstate is None:
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return ErrorClass.CONNECTION if lost else ErrorClass.DATA
    return _of_answer(error.sqlstate, error.diag)


def _of_answer(state: str, diagnostic: psycopg.errors.Diagnostic) -> ErrorClass:
    if diagnostic.severity_nonlocalized in ("FATAL", "PANIC"):
        return ErrorClass.CONNECTION
    if state in _CONFLICT:
        return ErrorClass.CONFLICT
    if diagnostic.source_function == "exec_stmt_raise":
        return ErrorClass.DATA
    if state in _CONNECTION or state.startswith("08"):
        return ErrorClass.CONNECTION
    if state.startswith(_OF_SERVER) or _is_cancelled(state, diagnostic):
        return ErrorClass.FATAL
    if _FUNCTION.search(diagnostic.context or "") or _is_of_a_value(state, diagnostic):
        return ErrorClass.DATA
    return ErrorClass.FATAL if state.startswith(_OURS) else ErrorClass.DATA


def _is_cancelled(state: str, diagnostic: psycopg.errors.Diagnostic) -> bool:
    """Whether somebody wants the statement to end. A time-out has the same SQLSTATE and other words."""
    return state == "57014" and "user request" in (diagnostic.message_primary or "")


def _is_of_a_value(state: str, diagnostic: psycopg.errors.Diagnostic) -> bool:
    """Errors of class 42 that a row has: a policy's check, and the grammar of a value (of a search, say)."""
    if state == "42501":
        return diagnostic.source_function == "ExecWithCheckOptions"
    return state == "42601" and diagnostic.statement_position is None


def is_unusual(error: BaseException) -> bool:
    """Whether an error that counts as DATA might yet be the statement's own fault, or a broken trigger's."""
    if isinstance(error, psycopg.Error):
        return error.sqlstate is not None and not error.sqlstate.startswith(_EVERYDAY)
    return isinstance(error, CostsConnectionError)


def describe(error: BaseException) -> tuple[str, str | None, str]:
    """Class name, SQLSTATE and the database's own message (with its detail) of an error, for the ledger."""
    if isinstance(error, psycopg.Error):
        diagnostic = error.diag
        message = diagnostic.message_primary or str(error)
        if diagnostic.message_detail:
            message = f"{message} ({diagnostic.message_detail})"
        return type(error).__name__, error.sqlstate, message
    return type(error).__name__, None, str(error)


def is_lost(error: BaseException) -> bool:
    """Whether the server is away; SQLAlchemy wraps what psycopg says while connecting."""
    original = getattr(error, "orig", None) or error
    return classify(original) is ErrorClass.CONNECTION


def stands_alone(error: BaseException) -> bool:
    """Whether a batch that raised this is cut in two, until the unit at fault stands alone."""
    return classify(error) in (ErrorClass.DATA, ErrorClass.CONFLICT)


@dataclass
class Refusals:
    """Failures that followed each other with one SQLSTATE and no row written in between.

    Everyday errors count until the run has written a row, since many rows side by side may break one constraint.
    Others count always: a trigger that lacks a right refuses every row from the moment on that it lacks it.
    """

    limit: int
    count: int = 0
    kind: tuple[str, str | None] = ("", None)
    written: bool = False

    def wrote(self, counts: Counts) -> None:
        """A batch is committed, with these rows in it or with none."""
        if counts.rows or counts.deleted:
            self.count, self.written = 0, True

    def failed(self, error: BaseException) -> None:
        """One more is in the ledger. Raises UserError where that makes too many."""
        name, state, message = describe(error)
        self.count = self.count + 1 if self.kind == (name, state) else 1
        self.kind = (name, state)
        if self.limit and self.count >= self.limit and (is_unusual(error) or not self.written):
            raise UserError(
                f"{self.count:,} failures in a row, each a {name}{f' (SQLSTATE {state})' if state else ''}, and no row "
                f"was written in between; the last was: {message}",
                hint="They are in the failure ledger. Mend the cause and run again, or raise max_failures_in_a_row.",
            ) from error
