"""Roll back one backfill: remove the records that it created and that have not been completed since.

A rollback can be repeated, and resumes where an interrupted one stopped. Not here: the run (`defs.training_rollback`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from dagster_backfills.domains.training.status import ASSETS
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.sizing import BatchSize, batches
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.statements import load_statements

_STATEMENTS = load_statements(Path(__file__).with_name("rollback.sql"))
COMPLETIONS = ASSETS[0]
_BATCH_RECORDS = 20_000  # takes about a second; an organization is never split


@dataclass(frozen=True)
class Preview:
    """What a rollback would do: organizations, oldest first, with the number of records to remove and to keep."""

    organizations: Sequence[tuple[str, int, int]]

    @property
    def remove(self) -> int:
        return sum(remove for _, remove, _ in self.organizations)

    @property
    def keep(self) -> int:
        return sum(keep for _, _, keep in self.organizations)

    def batches(self) -> Iterator[list[str]]:
        """IDs of the organizations with records to remove, in batches."""
        sizes = {organization: remove for organization, remove, _ in self.organizations if remove}
        return batches(list(sizes), sizes, BatchSize(EngineSettings(batch_units=_BATCH_RECORDS)))


def preview(conn: psycopg.Connection[Any], backfill_id: str | None) -> Preview:
    """Preview the rollback of one backfill, or with None of all incomplete records.

    Raises UserError for an unknown backfill.
    """
    if backfill_id is not None and not _STATEMENTS.known_backfill(
        conn, backfill_id=backfill_id, asset=COMPLETIONS
    ):
        raise UserError(
            f"There is no backfill {backfill_id!r} that has written completion records.",
            hint=_hint([row[0] for row in _STATEMENTS.backfills(conn, shown=5)]),
        )
    result = Preview(_STATEMENTS.preview(conn, backfill_id=backfill_id))
    conn.commit()
    return result


def analyze(conn: psycopg.Connection[Any]) -> None:
    """Update statistics. Right after a backfill they are outdated, and each batch would read the whole table."""
    _STATEMENTS.analyze(conn)
    conn.commit()


def remove_batch(conn: psycopg.Connection[Any], organizations: Sequence[str], backfill_id: str | None) -> int:
    """Remove the incomplete records of these organizations in one transaction. Returns the number removed."""
    keys = list(organizations)
    with conn.transaction():
        _STATEMENTS.lock_organizations(conn, asset=COMPLETIONS, organizations=keys)
        return _STATEMENTS.remove_records(conn, organizations=keys, backfill_id=backfill_id)


def _hint(recent: Sequence[str]) -> str:
    if not recent:
        return "No backfill has created records, or all of them have been rolled back."
    return f"The latest backfills with records are {', '.join(recent)}."
