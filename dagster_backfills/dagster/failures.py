"""What a person can mend, as a run of Dagster's says it."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from dagster_backfills.errors import UserError
from dagster_backfills.redact import redact


@contextmanager
def without_retry(*also: type[Exception]) -> Iterator[None]:
    """A UserError within is a failure with the same words, and no retry follows it. So is one of `also`."""
    mended: tuple[type[Exception], ...] = (UserError, *also)
    try:
        yield
    except mended as error:
        raise dg.Failure(redact(str(error)), allow_retries=False) from error
