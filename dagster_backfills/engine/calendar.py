"""SQL that computes the partition keys of changed rows, formatted as Dagster formats time-partition keys."""

from psycopg import sql

# When summer time ends, an hour is repeated. Dagster appends the UTC offset to the second one's key.
_OFFSET_MINUTES = "(extract(epoch from {at} - ({time}::timestamptz at time zone 'UTC')) / 60)::integer"
_OFFSET = f"to_char({_OFFSET_MINUTES} / 60 * 100 + mod({_OFFSET_MINUTES}, 60), 'FMS0000')"
_REPEATED = "({time}::timestamptz - interval '1 hour') at time zone {zone} = {at}"
_KEYS = {
    "hourly": f"to_char({{at}}, 'YYYY-MM-DD-HH24:00') || case when {_REPEATED} then {_OFFSET} else '' end",
    "daily": "to_char({at}, 'YYYY-MM-DD')",
    "weekly": "to_char({at} - make_interval(days => extract(dow from {at})::integer), 'YYYY-MM-DD')",
    "monthly": "to_char({at}, 'YYYY-MM-01')",
}
# A date is used as it is. A timestamp is converted to the calendar's time zone.
_AT = (
    "(case when pg_typeof({time}) = 'date'::regtype then {time}::timestamp"
    " else {time}::timestamptz at time zone {zone} end)"
)


def open_key(calendar: str, timezone: str) -> str:
    """Returns SQL for the key of the current, unfinished period. Dagster's partitions end before it."""
    return _key_at("now()", calendar, timezone)


def changed_keys(column: str, calendar: str | None, timezone: str) -> str:
    """Returns SQL that selects the partition keys of `changed_rows`.

    calendar: `hourly`, `daily`, `weekly` or `monthly` if the column is a date or time; None if it holds the key itself.
    """
    key = sql.Identifier("c", column).as_string(None)
    if calendar:
        key = _key_at(key, calendar, timezone)
    return f"select {key} from changed_rows as c"  # noqa: S608


def _key_at(time: str, calendar: str, timezone: str) -> str:
    """SQL for the key of the period that contains `time`, an SQL expression."""
    zone = sql.Literal(timezone).as_string(None)
    return _KEYS[calendar].format(at=_AT.format(time=time, zone=zone), time=time, zone=zone)
