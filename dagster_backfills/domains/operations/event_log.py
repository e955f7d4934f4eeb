"""Thinning the instance's event log. Not here: when, and where the log is."""

import psycopg

from dagster_backfills.domains.operations.statements import STATEMENTS

_ROWS = 10_000  # a transaction, so that nobody waits


def thin_event_log(conn: psycopg.Connection, days: int, rows: int = _ROWS) -> int:
    """Remove what ended runs logged more than `days` days ago and is no asset's history; returns how many entries.

    `conn` is in autocommit and finds Dagster's tables. What is cut off goes on when it is called again.
    """
    position, removed = 0, 0
    while True:
        reached, gone = STATEMENTS.thin_event_log(conn, position=position, days=days, rows=rows)
        if reached is None:
            return removed
        position, removed = reached, removed + gone
