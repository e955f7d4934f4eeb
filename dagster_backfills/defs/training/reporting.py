"""Dagster metadata of a training run: its totals, its largest organizations and its first failures."""

from typing import Any

import psycopg
from psycopg.rows import dict_row

from dagster_backfills.dagster.tables import table
from dagster_backfills.domains.training.status import ASSETS, STATEMENTS, run_totals

_SHOWN = 20


def run_metadata(conn: psycopg.Connection[Any], run_id: str) -> dict[str, Any]:
    """The run's metadata. Empty if the run processed no organization."""
    totals = run_totals(conn, run_id)
    if not totals["organizations"]:
        return {}
    binds = {"run_id": run_id, "assets": ASSETS, "completions": ASSETS[0], "shown": _SHOWN}
    with conn.cursor(row_factory=dict_row) as cursor:
        tables = {
            "largest_organizations": cursor.execute(STATEMENTS["run_organizations"], binds).fetchall(),
            "first_failures": cursor.execute(STATEMENTS["run_failures"], binds).fetchall(),
        }
    return {
        **totals,
        "seconds": round(totals["seconds"], 3),
        **{name: table(rows) for name, rows in tables.items() if rows},
    }
