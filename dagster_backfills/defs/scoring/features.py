"""Reading frames out of Postgres: COPY to Arrow, which costs a tenth of what rows as tuples would. No rules here."""

from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from dagster_backfills.lib.postgres.queries import load_queries

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def statement(name: str) -> str:
    """One of the domain's named statements."""
    return load_queries(Path(__file__).with_name("queries.sql"))[name]


@cache
def column_types(name: str) -> "dict[str, pa.DataType]":
    """The columns of a statement that feeds the rules, in order."""
    import pyarrow as pa

    text, whole = pa.string(), pa.int64()
    return {
        "features": {
            "member_id": text,
            **dict.fromkeys(
                ("joined_days", "expected_hundredths", "visits", "v30", "v60", "v90", "second_half_visits",
                 "span_days", "days_since_last", "max_gap", "gap_squares"),
                whole,
            ),
        },
        "churn_inputs": {"member_id": text, "commitment_score": whole, "days_since_last_visit": whole},
        "action_inputs": {
            "member_id": text, "coach_id": text, "commitment_score": whole, "churn_risk_score": whole,
            "churn_risk_level": text, "days_since_last_visit": whole,
        },
    }[name]  # fmt: skip


_MISSING_POSSIBLE = ("expected_hundredths", "days_since_last_visit")


def read_frame(
    conn: psycopg.Connection, name: str, day: date, members: Sequence[str], *, due_only: bool = True
) -> "pd.DataFrame":
    """Run a named statement for `members` as of `day`, and return its rows as a frame.

    `due_only` leaves out members that are not scored as of the day: those who have left, or joined later.

    Raises psycopg.Error for data that it can't compute with, such as an infinite joining date.
    """
    binds: Mapping[str, Any] = {"day": day, "members": list(members), "due_only": due_only}
    buffer = bytearray()
    with (
        conn.cursor() as cursor,
        cursor.copy(f"copy (\n{statement(name)}\n) to stdout (format csv)", binds) as copy,
    ):
        for chunk in copy:
            buffer += chunk
    return _parse(bytes(buffer), column_types(name))


def _parse(text: bytes, types: "dict[str, pa.DataType]") -> "pd.DataFrame":
    import pandas as pd
    import pyarrow as pa
    import pyarrow.csv as csv

    if not text:
        table = pa.schema(list(types.items())).empty_table()
    else:
        table = csv.read_csv(
            pa.BufferReader(text),
            read_options=csv.ReadOptions(column_names=list(types), use_threads=False),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=types, null_values=[""], strings_can_be_null=False
            ),
        )
    nullable = {
        name: pd.array(table.column(name).to_pandas(integer_object_nulls=True), dtype="Int64")
        for name in _MISSING_POSSIBLE
        if name in types
    }
    return table.to_pandas().assign(**nullable)
