"""Undoing one backfill: removing the records that it created and that nobody has completed since.

It can be repeated, and one that was cut off goes on where it stopped. Not here: the run, and the progress that follows.
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
_BATCH_RECORDS = 20_000  # a second's work; an organization is never cut


@dataclass(frozen=True)
class Preview:
    """What a rollback would do: organizations with their records to remove and to keep, the oldest first."""

    organizations: Sequence[tuple[str, int, int]]

    @property
    def remove(self) -> int:
        return sum(remove for _, remove, _ in self.organizations)

    @property
    def keep(self) -> int:
        return sum(keep for _, _, keep in self.organizations)

    def batches(self) -> Iterator[list[str]]:
        """Ids of the organizations that lose records, as many at a time as are a batch."""
        losses = {organization: remove for organization, remove, _ in self.organizations if remove}
        return batches(list(losses), losses, BatchSize(EngineSettings(batch_units=_BATCH_RECORDS)))


def preview(conn: psycopg.Connection[Any], backfill_id: str | None) -> Preview:
    """Counts for one backfill, or with None for every incomplete record. Raises UserError for an unknown backfill."""
    known = backfill_id is None or _STATEMENTS.known_backfill(
        conn, backfill_id=backfill_id, asset=COMPLETIONS
    )
    if not known:
        raise UserError(
            f"There is no backfill {backfill_id!r} that has written completion records.",
            hint=_hint([row[0] for row in _STATEMENTS.backfills(conn, shown=5)]),
        )
    found = Preview(_STATEMENTS.preview(conn, backfill_id=backfill_id))
    conn.commit()
    return found


def tell_planner(conn: psycopg.Connection[Any]) -> None:
    """Take statistics: right behind a backfill the planner believes in few records, and a batch would read them all."""
    _STATEMENTS.take_statistics(conn)
    conn.commit()


def remove_batch(conn: psycopg.Connection[Any], organizations: Sequence[str], backfill_id: str | None) -> int:
    """Remove what there is to remove of these organizations, in one transaction. Returns the records removed."""
    keys = list(organizations)
    with conn.transaction():
        _STATEMENTS.lock_organizations(conn, asset=COMPLETIONS, organizations=keys)
        return _STATEMENTS.remove_records(conn, organizations=keys, backfill_id=backfill_id)


def _hint(recent: Sequence[str]) -> str:
    if not recent:
        return "No record was created by a backfill, or all of these are rolled back."
    return f"The last that have records are {', '.join(recent)}."
