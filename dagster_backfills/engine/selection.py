"""Which partitions of a backfill a run works: stale, missing, failed, due, all, or those that are named.

Not here: how the run works them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import psycopg

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
        every = list(self.every(conn))
        wanted = self._wanted(conn, which, named, every)
        if which is Which.due or automatic:
            undone = {row[0] for row in GENERIC.undone(conn, assets=list(self.assets))}
            stale = self._stale(conn) if undone else {}
            wanted = {
                key: stale.get(key, first) if key in undone else first
                for key, first in wanted.items()
                if key not in undone or key in stale
            }
        strangers = [key for key in wanted if key not in set(every)] if which is Which.named else []
        if strangers:
            raise UserError(f"There is no partition {strangers[0]!r}.", close_to(strangers[0], every))
        return {key: wanted[key] for key in every if key in wanted}

    def _wanted(
        self, conn: psycopg.Connection[Any], which: Which, named: Sequence[str], every: Sequence[str]
    ) -> dict[str, int]:
        if which is Which.all:
            return dict.fromkeys(every, 0)
        if which is Which.named:
            return dict.fromkeys(named, 0)
        stale = self._stale(conn)
        failed = {row[0]: row[1:] for row in GENERIC.failed(conn, assets=list(self.assets))}
        if which is Which.stale:
            return stale
        if which is Which.failed:
            return dict.fromkeys(failed, 0)
        if which is Which.missing:
            return dict.fromkeys(self.missing(conn), 0)
        if which is Which.needed:
            return dict.fromkeys(failed, 0) | stale | dict.fromkeys(self.missing(conn), 0)
        resting = {key for key, (_, whole, again) in failed.items() if whole and not again}
        again = {key: first for key, (first, _, again) in failed.items() if again}
        due = again | stale | dict.fromkeys(self.due(conn), 0)
        return {key: first for key, first in due.items() if key not in resting}

    def _stale(self, conn: psycopg.Connection[Any]) -> dict[str, int]:
        return {key: first for key, first, _ in GENERIC.marked(conn, assets=list(self.assets))}
