"""SQL that computes the partition keys of changed rows, formatted as Dagster formats time-partition keys."""

from psycopg import sql

_KEYS = {
    "hourly": "to_char({at}, 'YYYY-MM-DD-HH24:00')",
    "daily": "to_char({at}, 'YYYY-MM-DD')",
    "weekly": "to_char({at} - make_interval(days => extract(dow from {at})::integer), 'YYYY-MM-DD')",
    "monthly": "to_char({at}, 'YYYY-MM-01')",
}
# A date is used as it is. A timestamp is converted to the calendar's time zone.
_AT = (
    "(case when pg_typeof({column}) = 'date'::regtype then {column}::timestamp"
    " else {column}::timestamptz at time zone {zone} end)"
)


def open_key(calendar: str, timezone: str) -> str:
    """Returns SQL for the key of the current, unfinished period. Dagster's partitions end before it."""
    zone = sql.Literal(timezone).as_string(None)
    return _KEYS[calendar].format(at=f"(now() at time zone {zone})")


def changed_keys(column: str, calendar: str | None, timezone: str) -> str:
    """Returns SQL that selects the partition keys of `changed_rows`.

    calendar: `hourly`, `daily`, `weekly` or `monthly` if the column is a date or time; None if it holds the key itself.
    """
    key, zone = sql.Identifier("c", column).as_string(None), sql.Literal(timezone).as_string(None)
    if calendar:
        key = _KEYS[calendar].format(at=_AT.format(column=key, zone=zone))
    return f"select {key} from changed_rows as c"  # noqa: S608
