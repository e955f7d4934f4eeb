"""Where each partition of a backfill stands: for people who look, and for names that they type. Only reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from dagster_backfills.engine.selection import Selection


@dataclass(frozen=True)
class Standing:
    """One partition. `failed`: its open entries in the ledger; `more`: what else is told of it."""

    partition: str
    name: str | None = None
    missing: bool = False
    stale_since: datetime | None = None
    failed: int = 0
    undone: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs_backfill(self) -> bool:
        return bool(self.missing or self.stale_since or self.failed)

    def __str__(self) -> str:
        said = [
            "missing" if self.missing else "",
            "stale" if self.stale_since else "",
            f"{self.failed:,} failed" if self.failed else "",
            "undone" if self.undone else "",
        ]
        return ", ".join(filter(None, said)) or "up to date"


def standings(
    conn: psycopg.Connection[Any],
    selection: Selection,
    names: Mapping[str, str | None],
    status: str | None,
    binds: Mapping[str, Any],
) -> list[Standing]:
    """Every partition, in the backfill's order: the oldest first.

    names: what people know them by, by key. status: a query that tells more of each, as `partition` and whatever else.
    """
    cursor = conn.cursor(row_factory=dict_row)
    said = cursor.execute(status, binds).fetchall() if status else []
    told = {str(row.pop("partition")): row for row in said}
    work, missing, found = selection.open_work(conn), set(selection.missing(conn)), []
    for key in selection.every(conn):
        of = work.get(key)
        since, failed, undone = (of.stale_since, of.failed, of.undone) if of else (None, 0, False)
        more = told.get(key, {})
        found.append(Standing(key, names.get(key), key in missing, since, failed, undone, more))
    return found


def counts_of(found: Sequence[Standing]) -> dict[str, int]:
    """How many there are, how many need a backfill, and for which reason."""
    return {
        "all": len(found),
        "needed": sum(each.needs_backfill for each in found),
        "missing": sum(each.missing for each in found),
        "stale": sum(bool(each.stale_since) for each in found),
        "failed": sum(bool(each.failed) for each in found),
    }


def next_of(found: list[Standing]) -> list[Standing]:
    """Those that need a backfill, in the order in which to work them: missing ones, the longest stale, failed ones."""
    needed = [each for each in found if each.needs_backfill]
    missing = [each for each in needed if each.missing]
    stale = sorted((e for e in needed if not e.missing and e.stale_since), key=lambda each: each.stale_since)  # type: ignore[arg-type,return-value]
    return [*missing, *stale, *(each for each in needed if not each.missing and not each.stale_since)]
