"""Validation of each value of a row, with its message. Pure: frames in, frames out, no database.

Vectorized fast paths accept ordinary values. Every other value is validated one at a time by a library:
`email_validator` for addresses (no DNS), `datetime.fromisoformat` for dates.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import polars as pl
from email_validator import EmailNotValidError, validate_email

from dagster_backfills.domains.kintell.file.columns import KNOWN
from dagster_backfills.domains.kintell.rows.messages import SHOWN, Message
from dagster_backfills.domains.kintell.rows.values import (
    PLAIN_ADDRESS,
    to_level,
    to_minutes,
    to_rating,
    to_session_type,
    to_utc,
)

MAX_ID_BYTES = 1000
MAX_LOCAL_OCTETS = 64
# The content of a cell that a spreadsheet could not compute (in any language), or that it altered.
CELL_ERROR = r"^#(?:N/A|NV|ROUNDED! .*|NOT CALCULATED!|[\p{Lu}0/.]{3,20}[!?])$"
# In this order a row's messages are joined.
ERROR_COLUMNS = (*(f"{name}_error" for name in KNOWN), "duplicate_error")

RESERVED_DOMAIN = r"(?i)[@.](?:arpa|invalid|local|localhost|onion|test|example|alt)$"
# Dates that polars parses correctly. The others go through `datetime.fromisoformat`.
PLAIN_DATE = r"^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}:[0-5][0-9]Z?)?$"


def validate_values(rows: pl.DataFrame) -> pl.DataFrame:
    """Validate every value. Returns the typed columns of `kintell_sessions` (null for an invalid value) and the
    messages `session_id_error` … `language_level_error` (null for a valid value)."""
    good = rows.select(
        "row",
        pl.col("session_id").alias("external_session_id"),
        _map_distinct(rows["session_type"], to_session_type, pl.String),
        pl.col("participant_email").str.to_lowercase(),
        pl.col("volunteer_email").str.to_lowercase(),
        _parse_dates(rows["date"]).alias("scheduled_at"),
        _map_distinct(rows["duration_min"], to_minutes, pl.Int32).alias("duration_minutes"),
        _map_distinct(rows["rating"], to_rating, pl.Int16),
        pl.when(pl.col("feedback_text") != "").then(pl.col("feedback_text")),
        _map_distinct(rows["language_level"], to_level, pl.String),
    )
    bad = {
        Message.SESSION_TYPE: good["session_type"].is_null(),
        Message.PARTICIPANT_ADDRESS: ~_are_valid_addresses(rows["participant_email"]),
        Message.VOLUNTEER_ADDRESS: ~_are_valid_addresses(rows["volunteer_email"]),
        Message.DATE: good["scheduled_at"].is_null(),
        Message.DURATION: good["duration_minutes"].is_null(),
        Message.RATING: good["rating"].is_null() & (rows["rating"] != ""),
        Message.FEEDBACK: rows["feedback_text"].str.contains(CELL_ERROR),
        Message.LANGUAGE_LEVEL: good["language_level"].is_null() & (rows["language_level"] != ""),
    }
    messages = [
        pl.when(where).then(message_with(message, pl.col(message.column))).alias(f"{message.column}_error")
        for message, where in bad.items()
    ]
    return good.hstack(rows.select(_id_error(), *messages, pl.lit(None, pl.String).alias("duplicate_error")))


def _map_distinct(values: pl.Series, rule: Callable[[str], Any], kind: Any) -> pl.Series:
    """Apply the rule to each value. It is called once per distinct value, of which there are few."""
    distinct = values.unique().drop_nulls()
    results = pl.Series([rule(value) for value in distinct], dtype=kind)
    return values.replace_strict(distinct, results, default=None, return_dtype=kind)


def _id_error() -> pl.Expr:
    id_, too_long = pl.col("session_id"), Message.INVALID_ID.with_value(f"longer than {MAX_ID_BYTES} bytes")
    return (
        pl.when(id_ == "").then(pl.lit(Message.MISSING_ID.prefix))
        .when(id_.str.len_bytes() > MAX_ID_BYTES).then(pl.lit(too_long))
        .when(id_.str.contains(CELL_ERROR)).then(message_with(Message.INVALID_ID, id_))
        .alias("session_id_error")
    )  # fmt: skip


def message_with(message: Message, value: pl.Expr) -> pl.Expr:
    """`Message.with_value` as an expression."""
    cut = pl.when(value.str.len_bytes() <= SHOWN).then(value).otherwise(value.str.head(SHOWN) + pl.lit("…"))
    return pl.lit(f"{message.prefix}: ") + cut


def is_bad() -> pl.Expr:
    """Whether a row has any message."""
    return pl.any_horizontal(pl.col(ERROR_COLUMNS).is_not_null())


def error_message() -> pl.Expr:
    """All messages of a row, joined, or null for a good row."""
    joined = pl.concat_str(ERROR_COLUMNS, separator="; ", ignore_nulls=True)
    return pl.when(joined != "").then(joined)


def _are_valid_addresses(values: pl.Series) -> pl.Series:
    plain = (
        (values.str.len_bytes() <= 64)
        & values.str.contains(PLAIN_ADDRESS)
        & ~values.str.contains(RESERVED_DOMAIN)
    )
    others = pl.select(pl.when(~plain).then(values)).to_series()
    return plain | _map_distinct(others, is_address, pl.Boolean).fill_null(False)


@lru_cache(maxsize=10_000)
def is_address(value: str) -> bool:
    """Whether the library accepts the address and its local part is within RFC 5321's limit, which the library only
    enforces in strict mode. `.test` domains are valid."""
    try:
        validate_email(value, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return False
    return len(value.rpartition("@")[0].encode()) <= MAX_LOCAL_OCTETS


def _parse_dates(values: pl.Series) -> pl.Series:
    """Parse dates to UTC date-times with microseconds, null for an invalid date."""
    # Add midnight to a date without a time, and drop the Z of a date-time.
    text = (values.str.head(19).str.replace("T", " ", literal=True) + " 00:00:00").str.head(19)
    plain = text.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False).dt.replace_time_zone(
        "UTC"
    )
    parsed = pl.select(pl.when(values.str.contains(PLAIN_DATE)).then(plain)).to_series()
    others = pl.select(pl.when(parsed.is_null()).then(values)).to_series()
    return pl.select(pl.coalesce(parsed, _map_distinct(others, to_utc, parsed.dtype))).to_series()
