"""What organizations lack, and what a run did for them, for whoever asks for their records.

Reads only, on a connection of the caller's. Not here: creating records, launching runs, printing.
"""

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
    """How many records each organization lacks, or the one of that id. Raises UserError where there is none such."""
    rows = STATEMENTS.missing_records(conn, organization=organization_id)
    if organization_id is not None and not rows:
        raise UserError(f"There is no organization {organization_id!r}.", hint=_hint(conn, organization_id))
    return dict(rows)


def _hint(conn: psycopg.Connection[Any], wanted: str) -> str:
    """Organizations that come close, by id or name."""
    names = STATEMENTS.organization_names(conn)
    by_spelling = {spelling.casefold(): (key, name) for key, name in names for spelling in (key, name)}
    close = get_close_matches(wanted.casefold(), by_spelling, n=3, cutoff=0.6)
    suggestions = dict.fromkeys("{} ({})".format(*by_spelling[each]) for each in close)
    if suggestions:
        return f"Did you mean {', '.join(suggestions)}?"
    return "`backfills status training_completions` lists every organization."


def run_totals(conn: psycopg.Connection[Any], run_id: str) -> dict[str, Any]:
    """What a run has done so far: organizations, members, records created and already there, failures, seconds."""
    cursor = conn.cursor(row_factory=dict_row)
    return STATEMENTS.run_totals(cursor, run_id=run_id, assets=ASSETS, completions=ASSETS[0])
