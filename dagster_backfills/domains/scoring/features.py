"""Read frames from Postgres as one row of arrays, which is far cheaper than one tuple per row.

Not here: the rules (`rules`, `action_rules`).
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa

from dagster_backfills.domains.scoring.statements import STATEMENTS
from dagster_backfills.engine.table.arrays import text_array

_TEXT = ("member_id", "coach_id", "churn_risk_level")
_MAY_BE_MISSING = ("expected_hundredths", "days_since_last_visit")
# Columns of each statement that the rules read.
COLUMNS = {
    "features": (
        "member_id", "joined_days", "expected_hundredths", "visits", "v30", "v60", "v90", "second_half_visits",
        "span_days", "days_since_last", "max_gap", "gap_squares",
    ),
    "churn_inputs": ("member_id", "commitment_score", "days_since_last_visit"),
    "action_inputs": (
        "member_id", "coach_id", "commitment_score", "churn_risk_score", "churn_risk_level", "days_since_last_visit",
    ),
}  # fmt: skip
_MISSING = -(2**62)  # represents NULL in transfer
_HEADER_BYTES = 20  # header of a one-dimensional binary array: dimensions, flags, type, length, lower bound


def read_frame(
    conn: psycopg.Connection, name: str, day: date, members: Sequence[str], *, due_only: bool = True
) -> pd.DataFrame:
    """Run a named statement for `members` as of `day`, and return its rows as a frame.

    `due_only` excludes members who are not scored for the day: they have left or joined later.

    Raises psycopg.Error for values that Postgres can't compute with, such as an infinite joining date.
    """
    names = COLUMNS[name]
    # Numeric arrays are transferred in Postgres's binary format, which NumPy reads directly.
    arrays = ", ".join(
        f"array_agg(q.{c})" if c in _TEXT else f"array_send(array_agg(coalesce(q.{c}, {_MISSING})::bigint))"
        for c in names
    )
    binds: Mapping[str, Any] = {"day": day, "members": text_array(members), "due_only": due_only}
    with conn.cursor(binary=True) as cursor:
        cursor.execute(f"select {arrays} from (\n{STATEMENTS[name]}\n) as q", binds, prepare=False)  # noqa: S608
        row = cursor.fetchone()
    assert row is not None
    return pd.DataFrame({c: _column(c, value) for c, value in zip(names, row, strict=True)}, copy=False)


def _column(name: str, value: Any) -> Any:
    if name in _TEXT:
        return pd.array(pa.array(value or [], pa.string()), dtype="str")
    numbers = _numbers(value)
    if name not in _MAY_BE_MISSING:
        return numbers
    missing = numbers == _MISSING
    numbers[missing] = 0
    return pd.arrays.IntegerArray(numbers, missing)


def _numbers(array: bytes | None) -> np.ndarray:
    """Parse a binary `bigint[]` without NULLs: each element follows its four-byte length."""
    if array is None:
        return np.empty(0, dtype="int64")
    elements = np.frombuffer(array, dtype=[("length", ">i4"), ("value", ">i8")], offset=_HEADER_BYTES)
    return elements["value"].astype("int64")
