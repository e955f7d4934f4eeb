"""Thin out Dagster's event log. Not here: the schedule, and the connection to Dagster's storage."""

import psycopg

from dagster_backfills.domains.operations.statements import STATEMENTS

_ROWS = 10_000  # per transaction, to keep transactions short


def thin_event_log(conn: psycopg.Connection, days: int, rows: int = _ROWS) -> int:
    """Delete events of finished runs that are older than `days` days, except asset events. Returns how many.

    `conn` must be in autocommit, with Dagster's tables on its search path. The function may be interrupted at any time.
    """
    position, removed = 0, 0
    while True:
        reached, deleted = STATEMENTS.thin_event_log(conn, position=position, days=days, rows=rows)
        if reached is None:
            return removed
        position, removed = reached, removed + deleted
