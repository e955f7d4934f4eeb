"""What a person can mend, as a run of Dagster's says it."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from dagster_backfills.errors import UserError


@contextmanager
def without_retry() -> Iterator[None]:
    """A UserError within is a failure with the same words, and no retry follows it."""
    try:
        yield
    except UserError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
