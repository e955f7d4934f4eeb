"""Store the results of attempts, many in one statement. Whether a failed job is retried is decided in the database."""

from collections.abc import Sequence

import psycopg

from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.attempts import AttemptFailure, Result, failure_of
from dagster_backfills.domains.queue.connection import Connection
from dagster_backfills.engine.failures import ErrorClass, classify, describe
from dagster_backfills.redact import redact

# Errors that an output can cause when it is stored.
_STORE_ERRORS = (psycopg.Error, TypeError, ValueError, RecursionError)


def store_results(connection: Connection, results: Sequence[Result]) -> None:
    """Store the results and set their `status`. If one can't be stored, only its own job fails.

    Raises errors of the database itself.
    """
    done: list[Result] = []
    failed: list[Result] = []
    for result in results:
        if result.attempt.stopped:
            result.status = "cancelled"
        else:
            (failed if result.failure else done).append(result)
    if done:
        _complete(connection, done)
    for result in failed:
        _fail(connection, result)


def _complete(connection: Connection, results: Sequence[Result]) -> None:
    pairs = [(r.job, r.output) for r in results]
    try:
        accepted = connection.call(lambda conn: queue.complete(conn, pairs))
    except _STORE_ERRORS as error:
        if isinstance(error, psycopg.Error) and classify(error) is ErrorClass.FATAL:
            raise
        if len(results) > 1:
            for result in results:
                _complete(connection, [result])
        else:
            _fail_unstorable(connection, results[0], error)
        return
    for result in results:
        result.status = "completed" if result.job.id in accepted else "lost"


def _fail_unstorable(connection: Connection, result: Result, error: Exception) -> None:
    """Fail an attempt whose output or next step can't be stored. Another attempt may produce a valid one."""
    message = redact(f"The handler finished, but its result can't be stored: {describe(error)[2]}")
    result.failure = AttemptFailure("invalid_output", message, failure_of(error).trace, retryable=True)
    _fail(connection, result)


def _fail(connection: Connection, result: Result) -> None:
    failure = result.failure
    assert failure is not None
    try:
        status = connection.call(
            lambda conn: queue.fail(
                conn, result.job, failure.kind, failure.message, failure.trace, failure.retryable
            )
        )
    except psycopg.Error as error:
        if classify(error) is ErrorClass.FATAL:
            raise
        status = None  # the lease will expire, and the job be reclaimed
    result.status = {"pending": "retried", "failed": "failed"}.get(status or "", "lost")  # type: ignore[assignment]
