"""The key of a calendar's partition that a row lies in, as SQL: the same that Dagster gives the partition."""

from psycopg import sql

_KEYS = {
    "hourly": "to_char({at}, 'YYYY-MM-DD-HH24:00')",
    "daily": "to_char({at}, 'YYYY-MM-DD')",
    "weekly": "to_char({at} - make_interval(days => extract(dow from {at})::integer), 'YYYY-MM-DD')",
    "monthly": "to_char({at}, 'YYYY-MM-01')",
}
# A date is what the calendar on the wall shows; a point in time is read off the clock there.
_AT = (
    "(case when pg_typeof({column}) = 'date'::regtype then {column}::timestamp"
    " else {column}::timestamptz at time zone {zone} end)"
)


def calendar_key(calendar: str, column: str, timezone: str) -> str:
    """SQL for the key. calendar: hourly, daily, weekly or monthly. column: SQL for a date or a point in time."""
    zone = sql.Literal(timezone).as_string(None)
    return _KEYS[calendar].format(at=_AT.format(column=column, zone=zone))
