"""Writing down how attempts ended, many in one statement. Not here: what becomes of a failed job."""

from collections.abc import Sequence

import psycopg

from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.attempts import AttemptFailure, Result, failure_of
from dagster_backfills.domains.queue.connection import Connection
from dagster_backfills.engine.failures import ErrorClass, classify, describe
from dagster_backfills.redact import redact

# What an output may raise on its way to the database.
_REFUSALS = (psycopg.Error, TypeError, ValueError, RecursionError)


def record(connection: Connection, results: Sequence[Result]) -> None:
    """Write these down and set their `status`. One that can't be written fails alone.

    Raises what is wrong with the database itself.
    """
    done: list[Result] = []
    failed: list[Result] = []
    for result in results:
        if result.attempt.stopped:
            result.status = "stopped"
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
    except _REFUSALS as error:
        if isinstance(error, psycopg.Error) and classify(error) is ErrorClass.FATAL:
            raise
        if len(results) > 1:
            for result in results:
                _complete(connection, [result])
        else:
            _fail_refused(connection, results[0], error)
        return
    for result in results:
        result.status = "completed" if result.job.id in accepted else "lost"


def _fail_refused(connection: Connection, result: Result, error: Exception) -> None:
    """The output, or what is to follow, can't be stored. Another attempt may give one that can."""
    message = redact(f"The job is done, but its end can't be stored: {describe(error)[2]}")
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
        status = None  # its lease ends, and the job is taken back
    result.status = {"pending": "retried", "failed": "failed"}.get(status or "", "lost")  # type: ignore[assignment]
