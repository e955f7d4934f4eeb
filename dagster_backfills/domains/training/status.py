"""The state of every organization and of a run, as the command line shows it and chooses by it.

Reads only, on a connection of the caller's. Not here: creating records, launching runs, printing.
"""

from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import class_row, tuple_row

from dagster_backfills.errors import UserError
from dagster_backfills.postgres.statements import load_statements

STATEMENTS = load_statements(Path(__file__).with_name("status.sql"))
ASSETS = ["training/employee_training_video_completions", "training/organization_training_progress"]


@dataclass(frozen=True)
class OrganizationStatus:
    """One row of `training.organization_status`, counted from the records themselves.

    `members` are those who are not deactivated, `expected` = members × videos, `records` what these members have,
    `missing` the difference. `stale_since`: the oldest change that no run has seen. `percent` is the progress
    table's, as of `progress_updated_at`.
    """

    organization_id: str
    organization_name: str
    created_at: datetime
    members: int
    expected: int
    records: int
    completed: int
    missing: int
    failed_members: int
    stale_since: datetime | None
    has_progress: bool
    percent: int | None
    progress_updated_at: datetime | None

    @property
    def needs_backfill(self) -> bool:
        return bool(self.missing or self.stale_since or not self.has_progress)


def list_organizations(conn: psycopg.Connection[Any]) -> list[OrganizationStatus]:
    """Every organization, the oldest first."""
    return _statuses(conn, None)


def get_organization(conn: psycopg.Connection[Any], organization_id: str) -> OrganizationStatus:
    """One organization by its id. Raises UserError, with those that come close by id or name, where there is none."""
    found = _statuses(conn, [organization_id])
    if found:
        return found[0]
    with conn.cursor(row_factory=tuple_row) as cursor:
        names = cursor.execute(STATEMENTS["organization_names"]).fetchall()
    by_spelling = {spelling.casefold(): (key, name) for key, name in names for spelling in (key, name)}
    close = get_close_matches(organization_id.casefold(), by_spelling, n=3, cutoff=0.6)
    suggestions = dict.fromkeys(f"{by_spelling[each][0]} ({by_spelling[each][1]})" for each in close)
    raise UserError(
        f"There is no organization {organization_id!r}.",
        hint=f"Did you mean {', '.join(suggestions)}?"
        if suggestions
        else "`backfills status training_completions` lists every organization.",
    )


@dataclass(frozen=True)
class RunReport:
    """Totals of one run: units processed, records created and already there, failures, seconds of its steps."""

    organizations: int
    members: int
    videos: int
    records_created: int
    records_already_there: int
    failures: int
    seconds: float


def run_report(conn: psycopg.Connection[Any], run_id: str) -> RunReport:
    """What the run has done so far."""
    binds = {"run_id": run_id, "assets": ASSETS, "completions": ASSETS[0]}
    with conn.cursor(row_factory=class_row(RunReport)) as cursor:
        row = cursor.execute(STATEMENTS["run_totals"], binds).fetchone()
    assert row is not None
    return row


def _statuses(conn: psycopg.Connection[Any], organizations: list[str] | None) -> list[OrganizationStatus]:
    with conn.cursor(row_factory=class_row(OrganizationStatus)) as cursor:
        return cursor.execute(STATEMENTS["organizations_by_age"], {"organizations": organizations}).fetchall()
