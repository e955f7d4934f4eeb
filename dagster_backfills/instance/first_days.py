"""Where the data of each day begins, so that Dagster's days do: a code location itself loads without a database."""

import os
from contextlib import suppress
from datetime import UTC, date, datetime

import psycopg

from dagster_backfills.postgres.connection import connect

# Both are read off the end of an index.
_FIRST = {
    "SCORING_FIRST_DAY": "select min(joined_date) from scoring.members",
    "KINTELL_FIRST_DAY": "select (min(scheduled_at) at time zone 'UTC')::date from kintell.kintell_sessions",
}


def first_days(url: str) -> dict[str, str]:
    """The variables that say so, of data that there is; what the user has set is left as it is."""
    wanted = {name: sql for name, sql in _FIRST.items() if not os.environ.get(name, "").strip()}
    found: dict[str, str] = {}
    if not wanted:
        return found
    with suppress(psycopg.Error), connect(url, autocommit=True) as conn:
        for name, sql in wanted.items():
            # The table may not be there, or not be this role's to read.
            with suppress(psycopg.Error):
                row = conn.execute(sql).fetchone()
                day = row[0] if row else None
                if isinstance(day, date) and day < datetime.now(UTC).date():
                    found[name] = day.isoformat()
    return found
