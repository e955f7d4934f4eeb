"""Turning errors that the user must fix into Dagster failures."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from dagster_backfills.errors import UserError
from dagster_backfills.redact import redact


@contextmanager
def without_retry(*also: type[Exception]) -> Iterator[None]:
    """Raise a UserError, or an error of the types in `also`, as a `Failure` with the same text that is not retried."""
    permanent: tuple[type[Exception], ...] = (UserError, *also)
    try:
        yield
    except permanent as error:
        raise dg.Failure(redact(str(error)), allow_retries=False) from error
