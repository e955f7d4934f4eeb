"""Queries for missing records of organizations, and for the results of a run. Reads only."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from dagster_backfills.errors import UserError
from dagster_backfills.postgres.statements import load_statements

STATEMENTS = load_statements(Path(__file__).with_name("status.sql"))
ASSETS = ["training/employee_training_video_completions", "training/organization_training_progress"]


def missing_records(conn: psycopg.Connection[Any], organization_id: str | None = None) -> dict[str, int]:
    """The number of missing records by organization, of all or one. Raises UserError for an unknown one."""
    rows = STATEMENTS.missing_records(conn, organization=organization_id)
    if organization_id is not None and not rows:
        raise UserError(f"There is no organization {organization_id!r}.", hint=_hint(conn, organization_id))
    return dict(rows)


def _hint(conn: psycopg.Connection[Any], organization_id: str) -> str:
    """Suggest organizations with a similar ID or name."""
    names = STATEMENTS.organization_names(conn)
    by_spelling = {spelling.casefold(): (key, name) for key, name in names for spelling in (key, name)}
    close = get_close_matches(organization_id.casefold(), by_spelling, n=3, cutoff=0.6)
    suggestions = dict.fromkeys("{} ({})".format(*by_spelling[each]) for each in close)
    if suggestions:
        return f"Did you mean {', '.join(suggestions)}?"
    return "To list all organizations: backfills status training_completions"


def run_totals(conn: psycopg.Connection[Any], run_id: str) -> dict[str, Any]:
    """The totals of a run so far: organizations, members, records created and already present, failures, seconds."""
    cursor = conn.cursor(row_factory=dict_row)
    return STATEMENTS.run_totals(cursor, run_id=run_id, assets=ASSETS, completions=ASSETS[0])
