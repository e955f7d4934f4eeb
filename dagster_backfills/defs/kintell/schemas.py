"""Pandera schemas of the frames that cross a border: texts out of the file, sessions into Postgres."""

from functools import lru_cache
from typing import TYPE_CHECKING

from dagster_backfills.defs.kintell.reader import KNOWN

if TYPE_CHECKING:
    import pandera.polars as pa

UUID_LENGTHS = (32, 36)  # without and with hyphens; the rest is Postgres's to judge


@lru_cache(maxsize=1)
def text_rows() -> "pa.DataFrameSchema":
    """Rows as read: `row` (index in the block) and every known column as text, none of it null."""
    import pandera.polars as pa
    import polars as pl

    columns = {name: pa.Column(pl.String) for name in KNOWN}
    return pa.DataFrameSchema({"row": pa.Column(pl.Int64, pa.Check.ge(0)), **columns}, strict=True)


@lru_cache(maxsize=1)
def session_rows() -> "pa.DataFrameSchema":
    """Rows that will be written: typed as `kintell.kintell_sessions` has them, users resolved to ids.

    `row_number` counts rows of the file from 1. `scheduled_at` is UTC; `duration_minutes` is positive.
    """
    import pandera.polars as pa
    import polars as pl

    from dagster_backfills.defs.kintell.rules import LEVELS, MAX_DURATION, MAX_ID_BYTES, SESSION_TYPES

    return pa.DataFrameSchema(
        {
            "row_number": pa.Column(pl.Int64, pa.Check.ge(1)),
            "id": pa.Column(pl.String, pa.Check.str_length(*UUID_LENGTHS)),
            "external_session_id": pa.Column(pl.String, pa.Check.str_length(1, MAX_ID_BYTES)),
            "session_type": pa.Column(pl.String, pa.Check.isin(list(SESSION_TYPES.values()))),
            "participant_id": pa.Column(pl.String, pa.Check.str_length(*UUID_LENGTHS)),
            "volunteer_id": pa.Column(pl.String, pa.Check.str_length(*UUID_LENGTHS)),
            "scheduled_at": pa.Column(pl.Datetime("us", "UTC")),
            "duration_minutes": pa.Column(pl.Int32, pa.Check.in_range(1, MAX_DURATION)),
            "rating": pa.Column(pl.Int16, pa.Check.in_range(1, 5), nullable=True),
            "feedback_text": pa.Column(pl.String, nullable=True),
            "language_level": pa.Column(pl.String, pa.Check.isin(list(LEVELS)), nullable=True),
        },
        strict=True,
        ordered=True,
    )
