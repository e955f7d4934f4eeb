"""What each value of a row may be, and the message where it is not. Pure: frames in, frames out, no database.

Fast paths judge what is plainly right; everything else is judged, value by value, by a library made for it:
`email_validator` for addresses (no DNS), `datetime.fromisoformat` for dates.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

SESSION_TYPES = {"language connect": "language", "mentorship": "mentorship"}
LEVELS = ("A1", "A2", "B1", "B2", "C1", "C2")
MAX_ID_BYTES = 1000
MAX_DURATION = 2**31 - 1
SHOWN = 200  # characters of a value that a message quotes
TWICE = "Duplicate session_id in file: "

# The order in which a row's messages are joined.
ERROR_COLUMNS = (
    "session_id_error",
    "session_type_error",
    "participant_error",
    "volunteer_error",
    "date_error",
    "duration_error",
    "rating_error",
    "language_level_error",
    "duplicate_error",
)

# Plain addresses only, of at most 64 bytes: no label or local part can be too long. Reserved domains
# (`.local` and the like) are left to the library.
PLAIN_ADDRESS = (
    r"^[A-Za-z0-9]+(?:[._+-][A-Za-z0-9]+)*@"
    r"(?:[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*\.)+[A-Za-z]{2,}$"
)
RESERVED_DOMAIN = r"(?i)[@.](?:arpa|invalid|local|localhost|onion|test|example|alt)$"
_DAY = r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}"
_TIME = r"[0-9]{2}:[0-9]{2}:[0-5][0-9]"


def judge(rows: "pl.DataFrame") -> "pl.DataFrame":
    """Every value of every row: the typed columns of `kintell_sessions` (null where a value is bad) and the
    messages `session_id_error` … `language_level_error` (null where it is good)."""
    import polars as pl

    rows = rows.with_columns(_addresses(rows, "participant_email"), _addresses(rows, "volunteer_email"))
    rows = rows.with_columns(_dates(rows))
    kind = pl.col("session_type").str.to_lowercase()
    duration = pl.col("duration_min").str.contains(r"^[0-9]{1,18}$")
    minutes = pl.when(duration).then(pl.col("duration_min")).cast(pl.Int64, strict=False)
    minutes = pl.when(minutes.is_between(1, MAX_DURATION)).then(minutes)
    level = pl.col("language_level").str.to_uppercase()
    rating = (
        pl.when(pl.col("rating").str.contains(r"^[1-5]$")).then(pl.col("rating")).cast(pl.Int16, strict=False)
    )
    judged = rows.select(
        "row",
        pl.col("session_id").alias("external_session_id"),
        kind.replace_strict(SESSION_TYPES, default=None, return_dtype=pl.String).alias("session_type"),
        pl.col("participant_email").str.to_lowercase(),
        pl.col("volunteer_email").str.to_lowercase(),
        "scheduled_at",
        minutes.cast(pl.Int32).alias("duration_minutes"),
        rating.alias("rating"),
        pl.when(pl.col("feedback_text") != "").then(pl.col("feedback_text")).alias("feedback_text"),
        pl.when(level.is_in(LEVELS)).then(level).alias("language_level"),
        _id_error().alias("session_id_error"),
        _message("Unknown session type", "session_type", ~kind.is_in(list(SESSION_TYPES))).alias(
            "session_type_error"
        ),
        _message("Invalid email format", "participant_email", ~pl.col("participant_email_ok")).alias(
            "participant_error"
        ),
        _message("Invalid email format", "volunteer_email", ~pl.col("volunteer_email_ok")).alias(
            "volunteer_error"
        ),
        _message("Invalid date format", "date", pl.col("scheduled_at").is_null()).alias("date_error"),
        _message("Invalid duration", "duration_min", minutes.is_null()).alias("duration_error"),
        _message("Invalid rating", "rating", rating.is_null() & (pl.col("rating") != "")).alias(
            "rating_error"
        ),
        _message(
            "Invalid language level",
            "language_level",
            ~level.is_in(LEVELS) & (pl.col("language_level") != ""),
        ).alias("language_level_error"),
    )
    return judged.with_columns(duplicate_error=pl.lit(None, pl.String))


def _id_error() -> "pl.Expr":
    import polars as pl

    column = pl.col("session_id")
    too_long = f"Invalid session_id: longer than {MAX_ID_BYTES} bytes"
    return (
        pl.when(column == "")
        .then(pl.lit("Missing session_id"))
        .when(column.str.len_bytes() > MAX_ID_BYTES)
        .then(pl.lit(too_long))
    )


def _message(text: str, column: str, bad: "pl.Expr") -> "pl.Expr":
    import polars as pl

    return pl.when(bad).then(pl.lit(f"{text}: ") + shown(pl.col(column)))


def shown(value: "pl.Expr") -> "pl.Expr":
    """A value as messages quote it: long ones are cut."""
    import polars as pl

    return pl.when(value.str.len_bytes() <= SHOWN).then(value).otherwise(value.str.head(SHOWN) + pl.lit("…"))


def shown_text(value: str) -> str:
    """The same of one value."""
    return value if len(value.encode()) <= SHOWN else value[:SHOWN] + "…"


def error_message() -> "pl.Expr":
    """All messages of a row, joined; null for a good row."""
    import polars as pl

    joined = pl.concat_str(ERROR_COLUMNS, separator="; ", ignore_nulls=True)
    return pl.when(joined != "").then(joined)


def _addresses(rows: "pl.DataFrame", column: str) -> "pl.Series":
    import polars as pl

    values = rows[column]
    plain = (
        (values.str.len_bytes() <= 64)
        & values.str.contains(PLAIN_ADDRESS)
        & ~values.str.contains(RESERVED_DOMAIN)
    )
    others = values.filter(~plain).unique()
    if len(others):
        good = [value for value in others if value and is_address(value)]
        plain = plain | values.is_in(pl.Series(good, dtype=pl.String).implode())
    return plain.alias(f"{column}_ok")


@lru_cache(maxsize=10_000)
def is_address(value: str) -> bool:
    """Whether the library takes it for an address that mail could be sent to. `.test` domains are addresses."""
    from email_validator import EmailNotValidError, validate_email

    try:
        validate_email(value, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return False
    return True


def _dates(rows: "pl.DataFrame") -> "pl.Series":
    """`date` as UTC date-times of microseconds; null where it is none."""
    import polars as pl

    values = rows["date"]
    stamp = pl.Datetime("us", "UTC")
    day = pl.when(pl.col("date").str.contains(f"^{_DAY}$")).then(pl.col("date"))
    moment = pl.when(pl.col("date").str.contains(f"^{_DAY}[T ]{_TIME}Z?$")).then(
        pl.col("date").str.head(10) + pl.lit("T") + pl.col("date").str.slice(11, 8)
    )
    fast = rows.select(
        pl.coalesce(
            moment.str.to_datetime("%Y-%m-%dT%H:%M:%S", time_unit="us", strict=False),
            day.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")),
        ).dt.replace_time_zone("UTC")
    ).to_series()
    others = values.filter(fast.is_null()).unique()
    if len(others):
        judged = pl.DataFrame(
            {"date": others, "judged": pl.Series([to_utc(value) for value in others], dtype=stamp)},
            schema={"date": pl.String, "judged": stamp},
        )
        slow = rows.select("date").join(judged, on="date", how="left", maintain_order="left")["judged"]
        fast = pl.select(pl.coalesce(fast, slow)).to_series()
    return fast.alias("scheduled_at")


def to_utc(value: str) -> datetime | None:
    """An ISO 8601 date or date-time in UTC (no zone means UTC); None where it is none."""
    if (
        len(value) > 64
        or not value.isascii()
        or (len(value) > 10 and not any(mark in value for mark in "Tt "))
    ):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def name_from_address(address: str) -> str:
    """A name for a user of whom only the address is known: `ana.maria-lopez@…` is `Ana Maria Lopez`."""
    local = address.partition("@")[0].partition("+")[0]
    for mark in "._-":
        local = local.replace(mark, " ")
    return " ".join(part.capitalize() for part in local.split()) or address
