"""What each value of a row may be, and the message where it is not. Pure: frames in, frames out, no database.

Fast paths judge what is plainly right; everything else is judged, value by value, by a library made for it:
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
# What stands in a cell that a spreadsheet could not compute (in any language), and in one that it altered.
CELL_ERROR = r"^#(?:N/A|NV|ROUNDED! .*|NOT CALCULATED!|[\p{Lu}0/.]{3,20}[!?])$"
# The order in which a row's messages are joined.
ERROR_COLUMNS = (*(f"{name}_error" for name in KNOWN), "duplicate_error")

RESERVED_DOMAIN = r"(?i)[@.](?:arpa|invalid|local|localhost|onion|test|example|alt)$"
# Dates that polars reads as fast as it is asked; `datetime.fromisoformat` has the others.
PLAIN_DATE = r"^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}:[0-5][0-9]Z?)?$"


def judge(rows: pl.DataFrame) -> pl.DataFrame:
    """Every value of every row: the typed columns of `kintell_sessions` (null where a value is bad) and the
    messages `session_id_error` … `language_level_error` (null where it is good)."""
    good = rows.select(
        "row",
        pl.col("session_id").alias("external_session_id"),
        _of_each(rows["session_type"], to_session_type, pl.String),
        pl.col("participant_email").str.to_lowercase(),
        pl.col("volunteer_email").str.to_lowercase(),
        _dates(rows["date"]).alias("scheduled_at"),
        _of_each(rows["duration_min"], to_minutes, pl.Int32).alias("duration_minutes"),
        _of_each(rows["rating"], to_rating, pl.Int16),
        pl.when(pl.col("feedback_text") != "").then(pl.col("feedback_text")),
        _of_each(rows["language_level"], to_level, pl.String),
    )
    bad = {
        Message.SESSION_TYPE: good["session_type"].is_null(),
        Message.PARTICIPANT_ADDRESS: ~_are_addresses(rows["participant_email"]),
        Message.VOLUNTEER_ADDRESS: ~_are_addresses(rows["volunteer_email"]),
        Message.DATE: good["scheduled_at"].is_null(),
        Message.DURATION: good["duration_minutes"].is_null(),
        Message.RATING: good["rating"].is_null() & (rows["rating"] != ""),
        Message.FEEDBACK: rows["feedback_text"].str.contains(CELL_ERROR),
        Message.LANGUAGE_LEVEL: good["language_level"].is_null() & (rows["language_level"] != ""),
    }
    told = [
        pl.when(where).then(about(message, pl.col(message.column))).alias(f"{message.column}_error")
        for message, where in bad.items()
    ]
    return good.hstack(rows.select(_id_error(), *told, pl.lit(None, pl.String).alias("duplicate_error")))


def _of_each(values: pl.Series, rule: Callable[[str], Any], kind: Any) -> pl.Series:
    """What the rule makes of each value; it is asked once for those that are alike, of which there are few."""
    distinct = values.unique().drop_nulls()
    made = pl.Series([rule(value) for value in distinct], dtype=kind)
    return values.replace_strict(distinct, made, default=None, return_dtype=kind)


def _id_error() -> pl.Expr:
    id_, too_long = pl.col("session_id"), Message.INVALID_ID.about(f"longer than {MAX_ID_BYTES} bytes")
    return (
        pl.when(id_ == "").then(pl.lit(Message.MISSING_ID.says))
        .when(id_.str.len_bytes() > MAX_ID_BYTES).then(pl.lit(too_long))
        .when(id_.str.contains(CELL_ERROR)).then(about(Message.INVALID_ID, id_))
        .alias("session_id_error")
    )  # fmt: skip


def about(message: Message, value: pl.Expr) -> pl.Expr:
    """`Message.about`, of each value."""
    cut = pl.when(value.str.len_bytes() <= SHOWN).then(value).otherwise(value.str.head(SHOWN) + pl.lit("…"))
    return pl.lit(f"{message.says}: ") + cut


def is_bad() -> pl.Expr:
    """Whether a row has any message."""
    return pl.any_horizontal(pl.col(ERROR_COLUMNS).is_not_null())


def error_message() -> pl.Expr:
    """All messages of a row, joined; null for a good row."""
    joined = pl.concat_str(ERROR_COLUMNS, separator="; ", ignore_nulls=True)
    return pl.when(joined != "").then(joined)


def _are_addresses(values: pl.Series) -> pl.Series:
    plain = (
        (values.str.len_bytes() <= 64)
        & values.str.contains(PLAIN_ADDRESS)
        & ~values.str.contains(RESERVED_DOMAIN)
    )
    others = pl.select(pl.when(~plain).then(values)).to_series()
    return plain | _of_each(others, is_address, pl.Boolean).fill_null(False)


@lru_cache(maxsize=10_000)
def is_address(value: str) -> bool:
    """Whether the library takes it for an address that mail could be sent to, and its local part is one that RFC 5321
    allows (which the library leaves to strict mode). `.test` domains are addresses."""
    try:
        validate_email(value, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return False
    return len(value.rpartition("@")[0].encode()) <= MAX_LOCAL_OCTETS


def _dates(values: pl.Series) -> pl.Series:
    """Dates as UTC date-times of microseconds; null where a value is none."""
    # A day alone gets the time that it lacks, a date-time loses its Z.
    text = (values.str.head(19).str.replace("T", " ", literal=True) + " 00:00:00").str.head(19)
    plain = text.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False).dt.replace_time_zone(
        "UTC"
    )
    found = pl.select(pl.when(values.str.contains(PLAIN_DATE)).then(plain)).to_series()
    others = pl.select(pl.when(found.is_null()).then(values)).to_series()
    return pl.select(pl.coalesce(found, _of_each(others, to_utc, found.dtype))).to_series()
