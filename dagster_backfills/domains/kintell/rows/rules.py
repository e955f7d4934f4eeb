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
_DAY = r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}"
_TIME = r"[0-9]{2}:[0-9]{2}:[0-5][0-9]"
PLAIN_DATES = (
    (f"^{_DAY}T{_TIME}Z$", "%Y-%m-%dT%H:%M:%SZ"),
    (f"^{_DAY}T{_TIME}$", "%Y-%m-%dT%H:%M:%S"),
    (f"^{_DAY}$", "%Y-%m-%d"),
    (f"^{_DAY} {_TIME}$", "%Y-%m-%d %H:%M:%S"),
    (f"^{_DAY} {_TIME}Z$", "%Y-%m-%d %H:%M:%SZ"),
)


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
        Message.FEEDBACK: _cell_errors(rows["feedback_text"]),
        Message.LANGUAGE_LEVEL: good["language_level"].is_null() & (rows["language_level"] != ""),
    }
    told = [
        made_where(where, rows[message.column], about(message, pl.col(message.column))).alias(
            f"{message.column}_error"
        )
        for message, where in bad.items()
    ]
    return good.with_columns(
        _id_errors(rows["session_id"]).alias("session_id_error"),
        *told,
        pl.lit(None, pl.String).alias("duplicate_error"),
    )


def _of_each(values: pl.Series, rule: Callable[[str], Any], kind: Any) -> pl.Series:
    """What the rule makes of each value; it is asked once for those that are alike, of which there are few."""
    distinct = values.alias("value").unique()
    made = pl.DataFrame([distinct, pl.Series(values.name, [rule(value) for value in distinct], kind)])
    return (
        values.alias("value")
        .to_frame()
        .join(made, on="value", how="left", maintain_order="left")[values.name]
    )


def _id_errors(ids: pl.Series) -> pl.Series:
    too_long = Message.INVALID_ID.about(f"longer than {MAX_ID_BYTES} bytes")
    id_, size = pl.col(ids.name), ids.str.len_bytes()
    problem = (
        pl.when(id_ == "").then(pl.lit(Message.MISSING_ID.says))
        .when(id_.str.len_bytes() > MAX_ID_BYTES).then(pl.lit(too_long))
        .otherwise(about(Message.INVALID_ID, id_))
    )  # fmt: skip
    return made_where((size == 0) | (size > MAX_ID_BYTES) | _cell_errors(ids), ids, problem)


def _cell_errors(values: pl.Series) -> pl.Series:
    return values.str.starts_with("#") & values.str.contains(CELL_ERROR)


def made_where(where: pl.Series, values: pl.Series, made: pl.Expr) -> pl.Series:
    """What `made` makes of each value where `where` is true, null for the rest: few rows do not cost as all do."""
    return spread(values.filter(where).to_frame().select(made).to_series(), where)


def spread(values: pl.Series, where: pl.Series) -> pl.Series:
    """A value for each true of `where`, in their order, and null for the rest."""
    if not len(values):
        return pl.repeat(None, len(where), dtype=values.dtype, eager=True)
    return values.gather(pl.select(pl.when(where).then(where.cum_sum() - 1)).to_series())


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
    others = values.filter(~plain).unique()
    if not len(others):
        return plain
    good = [value for value in others if value and is_address(value)]
    return plain | values.is_in(pl.Series(good, dtype=pl.String).implode())


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
    found = pl.repeat(None, len(values), dtype=pl.Datetime("us"), eager=True)
    for pattern, form in PLAIN_DATES:
        # A file has its dates in one form, so that few are left for the next.
        left = found.is_null()
        plain = values.filter(left)
        plain = pl.select(pl.when(plain.str.contains(pattern)).then(plain)).to_series()
        if plain.null_count() < len(plain):
            found = found.zip_with(
                ~left, spread(plain.str.to_datetime(form, time_unit="us", strict=False), left)
            )
        if not found.null_count():
            break
    found = found.dt.replace_time_zone("UTC")
    left = found.is_null()
    return found.zip_with(~left, spread(_of_each(values.filter(left), to_utc, found.dtype), left))
