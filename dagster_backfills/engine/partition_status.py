"""The status of each partition of a backfill: missing, stale, failed, undone or up to date. Read-only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from dagster_backfills.engine.selection import Selection


@dataclass(frozen=True)
class PartitionStatus:
    """The status of one partition.

    name: its display name. failed: its number of open failures. more: columns of the backfill's own status query.
    """

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
        words = [
            "missing" if self.missing else "",
            "stale" if self.stale_since else "",
            f"{self.failed:,} failed" if self.failed else "",
            "undone" if self.undone else "",
        ]
        return ", ".join(filter(None, words)) or "up to date"


def partition_statuses(
    conn: psycopg.Connection[Any],
    selection: Selection,
    names: Mapping[str, str | None],
    status: str | None,
    binds: Mapping[str, Any],
) -> list[PartitionStatus]:
    """Returns the status of every partition, oldest first.

    names: display names by key. status: a query that returns `partition` and further columns to show. binds: its
    parameters.
    """
    cursor = conn.cursor(row_factory=dict_row)
    rows = cursor.execute(status, binds).fetchall() if status else []
    more = {str(row.pop("partition")): row for row in rows}
    open_work, missing, partitions = selection.open_work(conn), set(selection.missing_keys(conn)), []
    for key in selection.every(conn):
        work = open_work.get(key)
        since, failed, undone = (work.stale_since, work.failed, work.undone) if work else (None, 0, False)
        partitions.append(
            PartitionStatus(key, names.get(key), key in missing, since, failed, undone, more.get(key, {}))
        )
    return partitions


def count_by_state(partitions: Sequence[PartitionStatus]) -> dict[str, int]:
    """Counts all partitions, those that need a backfill, and the reasons."""
    return {
        "all": len(partitions),
        "needed": sum(each.needs_backfill for each in partitions),
        "missing": sum(each.missing for each in partitions),
        "stale": sum(bool(each.stale_since) for each in partitions),
        "failed": sum(bool(each.failed) for each in partitions),
    }


def needing_backfill(partitions: list[PartitionStatus]) -> list[PartitionStatus]:
    """Returns the partitions that need a backfill: missing ones first, then stale ones by age, then failed ones."""
    return sorted((each for each in partitions if each.needs_backfill), key=_priority)


def _priority(each: PartitionStatus) -> tuple[Any, ...]:
    return (0,) if each.missing else (1, each.stale_since) if each.stale_since else (2,)
