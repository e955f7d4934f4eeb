"""Repeating work that a lost connection, a server restart or another transaction has interrupted."""

import time
from collections.abc import Callable
from typing import TypeVar

import psycopg

from dagster_backfills.engine.failures import ErrorClass, classify
from dagster_backfills.redact import redact

T = TypeVar("T")
RETRY_SECONDS = 300.0  # give up after this long without progress


class OutOfTurn(Exception):
    """The previous batch did not commit, so this one must not commit either."""


def is_transient(error: BaseException) -> bool:
    """Whether a retry may succeed: the server was unreachable, or another transaction was in the way."""
    transient = classify(error) in (ErrorClass.CONNECTION, ErrorClass.CONFLICT)
    return transient or isinstance(error, OutOfTurn | psycopg.errors.LockNotAvailable)


def retry_transient(
    work: Callable[[], T],
    done: Callable[[], int] = lambda: 0,
    on_trouble: Callable[[str], None] = lambda _: None,
) -> T:
    """Run `work`, and run it again after transient errors until `done()` stands still for `RETRY_SECONDS`."""
    before, since, delay = done(), time.monotonic(), 0.25
    while True:
        try:
            return work()
        except (OutOfTurn, psycopg.Error) as error:
            if done() > before:
                before, since, delay = done(), time.monotonic(), 0.25
            if not is_transient(error) or time.monotonic() - since > RETRY_SECONDS:
                raise
            on_trouble(f"{type(error).__name__}: {redact(str(error))}; starting again")
        time.sleep(delay)
        delay = min(delay * 2, 15.0)
