"""Pandera schemas of the frames read from the file and written to Postgres."""

from functools import lru_cache
from typing import Any

import pandera.polars as pa
import polars as pl

from dagster_backfills.domains.kintell.file.columns import KNOWN
from dagster_backfills.domains.kintell.rows.rules import MAX_ID_BYTES
from dagster_backfills.domains.kintell.rows.values import LEVELS, MAX_DURATION, SESSION_TYPES

UUID_BYTES = 16


# Each frame has one check for all values: a check per column costs more than processing the columns.


@lru_cache(maxsize=1)
def text_rows() -> pa.DataFrameSchema:
    """Rows as read: `row` (its number in the file) and every known column as text, never null."""
    columns = {"row": pa.Column(pl.Int64, nullable=True)}
    columns |= {name: pa.Column(pl.String, nullable=True) for name in KNOWN}
    rules = [pl.col("row") >= 0, pl.col(KNOWN).is_not_null()]
    return pa.DataFrameSchema(columns, checks=_all(rules), strict=True)


@lru_cache(maxsize=1)
def session_rows() -> pa.DataFrameSchema:
    """Rows to write, in the columns of `import_stage`, with users resolved to IDs.

    `row_number` is the row's number in the file, from 1. IDs are UUIDs of 16 bytes. `scheduled_at` is UTC.
    `rating`, `feedback_text` and `language_level` may be null.
    """

    types: dict[str, Any] = {
        "row_number": pl.Int64,
        "id": pl.Binary,
        "external_session_id": pl.String,
        "session_type": pl.String,
        "participant_id": pl.Binary,
        "volunteer_id": pl.Binary,
        "scheduled_at": pl.Datetime("us", "UTC"),
        "duration_minutes": pl.Int32,
        "rating": pl.Int16,
        "feedback_text": pl.String,
        "language_level": pl.String,
        "event_position": pl.Int64,
    }
    rules = [
        pl.exclude("rating", "feedback_text", "language_level").is_not_null(),
        pl.col("row_number") >= 1,
        pl.col("id", "participant_id", "volunteer_id").bin.size() == UUID_BYTES,
        pl.col("external_session_id").str.len_bytes().is_between(1, MAX_ID_BYTES),
        pl.col("session_type").is_in(list(SESSION_TYPES.values())),
        pl.col("duration_minutes").is_between(1, MAX_DURATION),
        pl.col("rating").is_between(1, 5).fill_null(True),
        pl.col("language_level").is_in(LEVELS).fill_null(True),
    ]
    columns = {name: pa.Column(kind, nullable=True) for name, kind in types.items()}
    return pa.DataFrameSchema(columns, checks=_all(rules), strict=True, ordered=True)


def _all(rules: list[pl.Expr]) -> pa.Check:
    return pa.Check(
        lambda data: bool(
            data.lazyframe.select(pl.all_horizontal(rule.all() for rule in rules)).collect().item()
        ),
        error="; ".join(map(str, rules)),
    )
