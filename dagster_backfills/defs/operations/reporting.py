"""The daily report on runs: figures, which the UI plots, and tables."""

from datetime import date
from typing import Any

import psycopg
from psycopg.rows import dict_row

from dagster_backfills.dagster.tables import table
from dagster_backfills.domains.operations.statements import STATEMENTS

DAYS = 30
_OUTCOMES = ("succeeded", "failed", "cancelled")


def report(conn: psycopg.Connection, until: date, days: int = DAYS) -> dict[str, Any]:
    """Metadata for the `days` UTC days up to `until`: figures for the last day, tables for all days."""
    binds = {"until": until, "days": days}
    by_day, by_job, by_domain = (
        _rows(conn, name, binds) for name in ("outcomes_by_day", "durations_by_job", "written_by_domain")
    )
    conn.commit()
    last = by_day[-1]
    entries: dict[str, Any] = {f"runs_{name}_last_day": last[name] for name in _OUTCOMES}
    entries |= {"days": days, "runs": sum(row["runs"] for row in by_job)}
    entries |= {"runs_failed": sum(row["failed"] for row in by_job)}
    if by_job:
        entries["jobs"] = table(by_job)
        entries["outcomes"] = table(by_day)
    if by_domain:
        entries["written"] = table(by_domain)
    return entries


def _rows(conn: psycopg.Connection, name: str, binds: dict[str, Any]) -> list[dict[str, Any]]:
    """The statement's rows, with numbers rounded to two decimals."""
    rows = conn.cursor(row_factory=dict_row).execute(STATEMENTS[name], binds)
    return [{key: round(v, 2) if isinstance(v, float) else v for key, v in row.items()} for row in rows]
