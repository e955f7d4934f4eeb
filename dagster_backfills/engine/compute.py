"""A pure function from the frame of a statement to the frame of the rows, as the engine computes batch by batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg

from dagster_backfills.engine.model import Compute
from dagster_backfills.engine.table.arrays import text_array


def compute_of(function: Callable[[Any], Any], reads: str, params: Mapping[str, Any]) -> Compute:
    """Rows that the function makes of what the statement `reads` gives for a batch's partitions and units."""

    def rows(conn: psycopg.Connection, keys: Sequence[str], units: Sequence[str] | None) -> Any:
        import pandas as pd  # the code location does without

        binds = {**params, "partition_keys": list(keys), "unit_keys": text_array(units), "run_id": ""}
        cursor = conn.execute(reads, binds)
        names = [column.name for column in cursor.description or ()]
        return function(pd.DataFrame(cursor.fetchall(), columns=names))

    return Compute(rows)
