"""Selects the partitions that a run processes: stale, missing, failed, due, all, or named ones.

Not here: processing them (`runner`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from dagster_backfills.errors import UserError, did_you_mean
from dagster_backfills.postgres.statements import load_statements

GENERIC = load_statements(Path(__file__).with_name("selection.sql"))


def is_key(value: object) -> bool:
    """Whether a value is a partition key. Null and the empty text are not: Dagster takes an empty key for none."""
    return value is not None and value != ""


class Which(Enum):
    """Which partitions a run processes. The member names are the values in Dagster's run config."""

    due = "due"
    needed = "needed"
    stale = "stale"
    missing = "missing"
    failed = "failed"
    all = "all"
    named = "named"


def which_of(which: Which | None, partitions: Sequence[str] | None) -> Which:
    """Which partitions a request means, by default those that need it. Raises UserError if it contradicts itself."""
    if partitions and which not in (None, Which.named):
        raise UserError("Partitions and `which` can't be used together.", "Use one of them.")
    if which is Which.named and not partitions:
        raise UserError("`which` is named, but there are no partitions.", "Name them.")
    return Which.named if partitions else which or Which.needed


@dataclass(frozen=True)
class Selection:
    """Finds the partitions of one backfill.

    assets: the backfill's assets, in the order of its tables. every: returns all partition keys, oldest first. due:
    returns keys that are due although they are not marked stale. missing: returns keys of partitions that lack rows; by
    default those that no run has written.
    """

    assets: Sequence[str]
    every: Callable[[psycopg.Connection[Any]], Sequence[str]]
    due: Callable[[psycopg.Connection[Any]], Sequence[str]]
    missing: Callable[[psycopg.Connection[Any]], Sequence[str]] | None = None

    def choose(
        self,
        conn: psycopg.Connection[Any],
        which: Which,
        named: Sequence[str] = (),
        *,
        automatic: bool = False,
    ) -> dict[str, int]:
        """Returns the partition keys to process, in order, each with the index of the first table to write.

        named: the keys, for `Which.named`. automatic: a schedule or sensor asks. An automatic or `due` selection skips
        undone partitions until their sources change; `due` also skips partitions that failed recently. Raises UserError
        for a named key that does not exist.
        """
        every = list(self.every(conn))
        needs_open_work = automatic or which not in (Which.all, Which.named, Which.missing)
        open_work = self.open_work(conn) if needs_open_work else {}
        chosen = self._chosen(conn, which, named, every, open_work)
        if which is Which.due or automatic:
            for key in [key for key in chosen if key in open_work and open_work[key].undone]:
                del chosen[key]
                if open_work[key].stale_since:
                    chosen[key] = open_work[key].first_stale
        unknown = [key for key in chosen if key not in set(every)] if which is Which.named else []
        if unknown:
            raise UserError(f"There is no partition {unknown[0]!r}.", did_you_mean(unknown[0], every))
        return {key: chosen[key] for key in every if key in chosen}

    def open_work(self, conn: psycopg.Connection[Any]) -> dict[str, Any]:
        """Returns the rows of the query `open_work` by partition: stale marks, open failures, undone partitions."""
        cursor = conn.cursor(row_factory=namedtuple_row)
        return {row.partition: row for row in GENERIC.open_work(cursor, assets=list(self.assets))}

    def missing_keys(self, conn: psycopg.Connection[Any]) -> Sequence[str]:
        """Returns the keys of missing partitions."""
        if self.missing is not None:
            return self.missing(conn)
        written = self.written(conn)
        return [key for key in self.every(conn) if key not in written]

    def written(self, conn: psycopg.Connection[Any]) -> set[str]:
        """Returns the keys that runs have written, including those of former partitions."""
        return {key for (key,) in GENERIC.written(conn, assets=list(self.assets))}

    def _chosen(
        self,
        conn: psycopg.Connection[Any],
        which: Which,
        named: Sequence[str],
        every: Sequence[str],
        open_work: Mapping[str, Any],
    ) -> dict[str, int]:
        if which is Which.all:
            return dict.fromkeys(every, 0)
        if which is Which.named:
            return dict.fromkeys(named, 0)
        if which is Which.missing:
            return dict.fromkeys(self.missing_keys(conn), 0)
        stale = {key: each.first_stale for key, each in open_work.items() if each.stale_since}
        failed = {key: each for key, each in open_work.items() if each.failed}
        if which is Which.stale:
            return stale
        if which is Which.failed:
            return dict.fromkeys(failed, 0)
        if which is Which.needed:
            return dict.fromkeys(failed, 0) | stale | dict.fromkeys(self.missing_keys(conn), 0)
        retried = {key: each.first_failed for key, each in failed.items() if each.retry_due}
        due = retried | stale | dict.fromkeys(self.due(conn), 0)
        backing_off = {key for key, each in failed.items() if each.whole and not each.retry_due}
        return {key: first for key, first in due.items() if key not in backing_off}
