"""Which error means what to a batch. Not here: how it is recorded (`ledger`) or repeated (`runner`)."""

from enum import Enum

import psycopg

from dagster_backfills.lib.errors import UserError


class ErrorClass(Enum):
    """What the engine does about an error."""

    DATA = "data"  # some unit of the batch is bad: bisect until it stands alone
    CONFLICT = "conflict"  # another transaction was in the way: the same batch again
    CONNECTION = "connection"  # the server is away: wait, connect, the same batch again
    FATAL = "fatal"  # every batch would fail alike: stop


_OF_DATA = (ValueError, ArithmeticError, TypeError, LookupError)
_CONFLICT = {"40001", "40P01"}
_CONNECTION = {"57P01", "57P02", "57P03", "57P05", "25P03", "53300", "53400"}
_FATAL_STATES = {"25006", "53100", "0A000"}
_FATAL_CLASSES = {"42", "28", "3D", "3F", "F0", "58", "XX", "26", "34", "0B"}


def classify(error: BaseException) -> ErrorClass:
    """Class of an error that a batch raised, by its SQLSTATE.

    Constraint, cast, trigger, resource-limit and time-out errors are DATA, as is an exception of a Python rule
    on the batch's own rows. A missing table or column, a missing right, a read-only or full server are FATAL.
    """
    if isinstance(error, UserError):
        return ErrorClass.FATAL
    if not isinstance(error, psycopg.Error):
        of_data = isinstance(error, _OF_DATA) or type(error).__module__.startswith("pandera")
        return ErrorClass.DATA if of_data else ErrorClass.FATAL
    state = error.sqlstate
    if state is None:
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return ErrorClass.CONNECTION if lost else ErrorClass.DATA
    if state in _CONFLICT:
        return ErrorClass.CONFLICT
    if state in _CONNECTION or state.startswith("08"):
        return ErrorClass.CONNECTION
    if state in _FATAL_STATES or state[:2] in _FATAL_CLASSES:
        return ErrorClass.FATAL
    return ErrorClass.DATA


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
