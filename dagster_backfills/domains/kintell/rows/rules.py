"""What each value of a row may be, and the message where it is not. Pure: frames in, frames out, no database.

Fast paths judge what is plainly right; everything else is judged, value by value, by a library made for it:
`email_validator` for addresses (no DNS), `datetime.fromisoformat` for dates.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import polars as pl
from email_validator import EmailNotValidError, validate_email

SESSION_TYPES = {"language connect": "language", "mentorship": "mentorship"}
LEVELS = ("A1", "A2", "B1", "B2", "C1", "C2")
MAX_ID_BYTES = 1000
MAX_DURATION = 2**31 - 1
MAX_DIGITS = 18
MAX_LOCAL_OCTETS = 64
SHOWN = 200  # characters of a value that a message quotes
# What stands in a cell that a spreadsheet could not compute (in any language), and in one that it altered.
CELL_ERROR = r"^#(?:N/A|NV|ROUNDED! .*|NOT CALCULATED!|[\p{Lu}0/.]{3,20}[!?])$"
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
    "feedback_error",
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
# ISO 8601 has hours and minutes here; Python would take minutes over 59, and seconds too.
OFFSET = r"[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?"
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
    not_good = {name: good[name].is_null() for name in good.columns}

    def told(error: str, text: str, column: str, bad: pl.Series) -> pl.Series:
        return _messages(text, rows[column], bad).alias(error)

    no_address = {role: ~_are_addresses(rows[f"{role}_email"]) for role in ("participant", "volunteer")}
    optional = {name: not_good[name] & (rows[name] != "") for name in ("rating", "language_level")}
    return good.with_columns(
        _id_errors(rows["session_id"]).alias("session_id_error"),
        told("session_type_error", "Unknown session type", "session_type", not_good["session_type"]),
        *(told(f"{r}_error", "Invalid email format", f"{r}_email", bad) for r, bad in no_address.items()),
        told("date_error", "Invalid date format", "date", not_good["scheduled_at"]),
        told("duration_error", "Invalid duration", "duration_min", not_good["duration_minutes"]),
        *(told(f"{c}_error", f"Invalid {c.replace('_', ' ')}", c, bad) for c, bad in optional.items()),
        told("feedback_error", "Invalid feedback text", "feedback_text", _cell_errors(rows["feedback_text"])),
        pl.lit(None, pl.String).alias("duplicate_error"),
    )


def to_session_type(value: str) -> str | None:
    """In any case, with any white space between the words: a no-break space looks like the other one."""
    return SESSION_TYPES.get(" ".join(value.lower().split()))


def to_minutes(value: str) -> int | None:
    """Digits alone: no sign, no fraction, no exponent."""
    minutes = int(value) if value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS else 0
    return minutes if 1 <= minutes <= MAX_DURATION else None


def to_rating(value: str) -> int | None:
    return int(value) if value in ("1", "2", "3", "4", "5") else None


def to_level(value: str) -> str | None:
    return value.upper() if value.upper() in LEVELS else None


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
    missing, too_long = "Missing session_id", f"Invalid session_id: longer than {MAX_ID_BYTES} bytes"
    id_, size = pl.col(ids.name), ids.str.len_bytes()
    problem = (
        pl.when(id_ == "").then(pl.lit(missing))
        .when(id_.str.len_bytes() > MAX_ID_BYTES).then(pl.lit(too_long))
        .otherwise(pl.lit("Invalid session_id: ") + id_)
    )  # fmt: skip
    return made_where((size == 0) | (size > MAX_ID_BYTES) | _cell_errors(ids), ids, problem)


def _cell_errors(values: pl.Series) -> pl.Series:
    return values.str.starts_with("#") & values.str.contains(CELL_ERROR)


def _messages(text: str, values: pl.Series, bad: pl.Series) -> pl.Series:
    """The message of each bad value, null for the others."""
    return made_where(bad, values, pl.lit(text + ": ") + shown(pl.col(values.name)))


def made_where(where: pl.Series, values: pl.Series, made: pl.Expr) -> pl.Series:
    """What `made` makes of each value where `where` is true, null for the rest: few rows do not cost as all do."""
    return spread(values.filter(where).to_frame().select(made).to_series(), where)


def spread(values: pl.Series, where: pl.Series) -> pl.Series:
    """A value for each true of `where`, in their order, and null for the rest."""
    if not len(values):
        return pl.repeat(None, len(where), dtype=values.dtype, eager=True)
    return values.gather(pl.select(pl.when(where).then(where.cum_sum() - 1)).to_series())


def shown(value: pl.Expr) -> pl.Expr:
    """A value as messages quote it: long ones are cut."""
    return pl.when(value.str.len_bytes() <= SHOWN).then(value).otherwise(value.str.head(SHOWN) + pl.lit("…"))


def shown_text(value: str) -> str:
    """The same of one value."""
    return value if len(value.encode()) <= SHOWN else value[:SHOWN] + "…"


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


def to_utc(value: str) -> datetime | None:
    """An ISO 8601 date or date-time in UTC (no zone means UTC); None where it is none."""
    day, _, clock = value.upper().replace(" ", "T").partition("T")
    offset = re.search(r"[+-].*", clock)
    known = not offset or re.fullmatch(OFFSET, offset[0])
    if len(value) > 64 or not value.isascii() or len(day) > 10 or not known:
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
