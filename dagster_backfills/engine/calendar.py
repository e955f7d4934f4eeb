"""The keys of the partitions that changed rows lie in, as SQL: the same that Dagster gives a calendar's partitions."""

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


def open_key(calendar: str, timezone: str) -> str:
    """SQL for the key of the time that is not over: Dagster has a partition only of those before it."""
    zone = sql.Literal(timezone).as_string(None)
    return _KEYS[calendar].format(at=f"(now() at time zone {zone})")


def changed_keys(column: str, calendar: str | None, timezone: str) -> str:
    """SQL for the keys of `changed_rows`. calendar: hourly, daily, weekly or monthly, where the column is a time."""
    key, zone = sql.Identifier("c", column).as_string(None), sql.Literal(timezone).as_string(None)
    if calendar:
        key = _KEYS[calendar].format(at=_AT.format(column=key, zone=zone))
    return f"select {key} from changed_rows as c"  # noqa: S608
