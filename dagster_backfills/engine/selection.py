"""Which partitions of a backfill a run works: stale, missing, failed, due, all, or those that are named.

Not here: how the run works them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from dagster_backfills.errors import UserError, close_to
from dagster_backfills.postgres.statements import load_statements

GENERIC = load_statements(Path(__file__).with_name("selection.sql"))


class Which(Enum):
    """Which partitions a run works. Dagster's config goes by the names, so these are as they are written there."""

    due = "due"
    needed = "needed"
    stale = "stale"
    missing = "missing"
    failed = "failed"
    all = "all"
    named = "named"


@dataclass(frozen=True)
class Selection:
    """How a backfill's partitions are found.

    assets: its tables' assets, in its order. every: gives all keys, the oldest first. due: gives keys that are due
    although nothing has marked them. missing: gives the keys that have never been written.
    """

    assets: Sequence[str]
    every: Callable[[psycopg.Connection[Any]], Sequence[str]]
    due: Callable[[psycopg.Connection[Any]], Sequence[str]]
    missing: Callable[[psycopg.Connection[Any]], Sequence[str]]

    def choose(
        self,
        conn: psycopg.Connection[Any],
        which: Which,
        named: Sequence[str] = (),
        *,
        automatic: bool = False,
    ) -> dict[str, int]:
        """The keys to work, in order, each with the position of the first table that has to be written.

        `due` leaves alone what failed a moment ago. It, and whatever is `automatic`, leaves alone what was undone,
        until its source has changed. Raises UserError for a name that is no partition.
        """
        every, found = list(self.every(conn)), self.open_work(conn)
        wanted = self._wanted(conn, which, named, every, found)
        if which is Which.due or automatic:
            for key in [key for key in wanted if key in found and found[key].undone]:
                del wanted[key]
                if found[key].stale_since:
                    wanted[key] = found[key].first_stale
        strangers = [key for key in wanted if key not in set(every)] if which is Which.named else []
        if strangers:
            raise UserError(f"There is no partition {strangers[0]!r}.", close_to(strangers[0], every))
        return {key: wanted[key] for key in every if key in wanted}

    def open_work(self, conn: psycopg.Connection[Any]) -> dict[str, Any]:
        """By partition what there is to do, as the statement of that name gives it."""
        cursor = conn.cursor(row_factory=namedtuple_row)
        return {row.partition: row for row in GENERIC.open_work(cursor, assets=list(self.assets))}

    def _wanted(
        self,
        conn: psycopg.Connection[Any],
        which: Which,
        named: Sequence[str],
        every: Sequence[str],
        found: Mapping[str, Any],
    ) -> dict[str, int]:
        if which is Which.all:
            return dict.fromkeys(every, 0)
        if which is Which.named:
            return dict.fromkeys(named, 0)
        if which is Which.missing:
            return dict.fromkeys(self.missing(conn), 0)
        stale = {key: each.first_stale for key, each in found.items() if each.stale_since}
        failed = {key: each for key, each in found.items() if each.failed}
        if which is Which.stale:
            return stale
        if which is Which.failed:
            return dict.fromkeys(failed, 0)
        if which is Which.needed:
            return dict.fromkeys(failed, 0) | stale | dict.fromkeys(self.missing(conn), 0)
        again = {key: each.first_failed for key, each in failed.items() if each.again}
        due = again | stale | dict.fromkeys(self.due(conn), 0)
        resting = {key for key, each in failed.items() if each.whole and not each.again}
        return {key: first for key, first in due.items() if key not in resting}
