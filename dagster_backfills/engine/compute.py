"""A `Compute` source made of a statement and a pure function from data frame to data frame."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg

from dagster_backfills.engine.model import Compute, Query
from dagster_backfills.engine.table.address import Windows, window_binds
from dagster_backfills.engine.table.arrays import text_array


def compute_of(
    function: Callable[[Any], Any],
    reads: str,
    params: Mapping[str, Any],
    windows: Callable[[Sequence[str]], Windows],
) -> Compute:
    """Returns a source that runs the statement `reads` for each batch and passes the resulting frame to `function`.

    function: takes a pandas DataFrame and returns the rows to write. params: values for the statement's own binds.
    windows: returns start and end of the partitions, if they are of a calendar.
    """

    def rows(conn: psycopg.Connection, keys: Sequence[str], units: Sequence[str] | None) -> Any:
        import pandas as pd  # slow to import; code locations do not need it

        binds = {
            **params,
            "partition_keys": list(keys),
            "unit_keys": text_array(units),
            "run_id": "",
            **window_binds(windows(keys), keys),
        }
        cursor = conn.execute(reads, binds)
        names = [column.name for column in cursor.description or ()]
        return function(pd.DataFrame(cursor.fetchall(), columns=names))

    return Compute(rows, window=Query(reads).window)
