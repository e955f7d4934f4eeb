"""What a declaration's `stale_when` says of each source table, as the engine watches it."""

from typing import TYPE_CHECKING

from psycopg import sql

from dagster_backfills.components.declaration import split_table
from dagster_backfills.engine.watched import WatchedTable

if TYPE_CHECKING:
    from dagster_backfills.components.building import Backfill

# The key of the calendar's partition that a point in time, or a date, lies in.
_CALENDAR = {
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


def watched_table(backfill: "Backfill", source: str, by: str) -> WatchedTable:
    """The source table, with SQL for the keys of the partitions that its changed rows are of."""
    schema, name = split_table(source)
    return WatchedTable(backfill.name, schema, name, _keys(backfill, by), backfill.assets, by)


def _keys(backfill: "Backfill", by: str) -> str:
    statement = backfill.statements.get(by)
    if statement is not None:
        return statement.sql.replace("%%", "%")
    partitions = backfill.declared.partitions
    if partitions is None:
        return "select '' from changed_rows limit 1"
    column = sql.Identifier("c", by).as_string(None)
    for kind, key in _CALENDAR.items():
        if getattr(partitions, kind) is not None:
            zone = sql.Literal(partitions.timezone).as_string(None)
            column = key.format(at=_AT.format(column=column, zone=zone))
    return f"select {column} from changed_rows as c"  # noqa: S608
