"""Showing a run's progress: bars on a terminal, a line every few seconds elsewhere. Only reads.

A run's progress is a list of `PartProgress`, read from the engine's tables or by a domain's own function.
"""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from dagster_backfills.cli.database import poll_database
from dagster_backfills.cli.output import console, duration, say
from dagster_backfills.engine.results import RESULTS

_BAR = 8
# Shows the run with this ID until the function returns true.
Watch = Callable[[str, Callable[[], bool]], object]


@dataclass(frozen=True)
class PartProgress:
    """The progress of one part of a run: `done` of `total` items, and the same in words. `key` is unique in the run."""

    key: str
    name: str
    done: int
    total: int | None
    words: str

    def __str__(self) -> str:
        return f"{self.name}: {self.words}"


Read = Callable[["psycopg.Connection[Any]", str], list[PartProgress]]


def read_steps(conn: psycopg.Connection[Any], run_id: str) -> list[PartProgress]:
    """The steps of a run, as the engine records them."""
    rows = conn.cursor(row_factory=namedtuple_row).execute(RESULTS["steps"], {"run_id": run_id}).fetchall()
    return [_step(row) for row in rows]


def _step(row: Any) -> PartProgress:
    by_units = row.units_total is not None
    done, total, what = (
        (row.units_done, row.units_total, "units")
        if by_units
        else (row.partitions_done, row.partitions_total, "partitions")
    )
    left = f"{duration(row.time_left)} left, " if row.time_left else ""
    rate = f"{row.units_per_second:,.0f}/s, " if by_units else ""
    words = f"{done:,} of {total:,} {what}, {rate}{left}{row.failures:,} failed"
    return PartProgress(row.step, row.assets, done, total, words)


def follow_run(
    url: str,
    run_id: str,
    ended: Callable[[], bool],
    read: Read = read_steps,
    *,
    poll: float = 0.5,
    line_every: float = 5.0,
) -> list[PartProgress]:
    """Show a run's progress until `ended()` is true. Returns the final progress.

    Keeps trying while the database is unavailable, as the run itself does.
    """
    parts: list[PartProgress] = []
    last = False
    show: _Bars | _Lines = _Bars() if sys.stderr.isatty() else _Lines(line_every)
    with show, closing(poll_database(url, lambda conn: read(conn, run_id))) as results:
        while not last:
            last = ended()
            result = next(results)
            parts = result if isinstance(result, list) and result else parts
            show.show(parts, last)
            if not last:
                time.sleep(poll)
    return parts


class _Lines(AbstractContextManager["_Lines"]):
    """Prints a line for each part that has changed, every few seconds and at the end."""

    def __init__(self, every: float) -> None:
        self._every, self._next = every, 0.0
        self._printed: list[str] = []

    def __exit__(self, *error: object) -> None:
        """Nothing to clean up."""

    def show(self, parts: list[PartProgress], last: bool) -> None:
        if not last and time.monotonic() < self._next:
            return
        lines = [str(part) for part in parts]
        if lines != self._printed:
            say(*(line for line in lines if line not in self._printed))
            self._printed, self._next = lines, time.monotonic() + self._every


class _Bars(Progress):
    """One line per part: name, bar, words. The words are never truncated; the name gets the remaining width."""

    def __init__(self) -> None:
        rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        name = TextColumn("{task.description}", markup=False, table_column=rest)
        words = TextColumn("{task.fields[state]}", markup=False)
        super().__init__(name, BarColumn(_BAR), words, console=console(stderr=True), expand=True)
        self._waiting: Any = self.add_task("starting", total=None, state="")
        self._shown: dict[str, Any] = {}

    def show(self, parts: list[PartProgress], last: bool) -> None:
        if (parts or last) and self._waiting is not None:
            self.remove_task(self._waiting)
            self._waiting = None
        for part in parts:
            if part.key not in self._shown:
                self._shown[part.key] = self.add_task(part.name, total=None, state="")
            self.update(self._shown[part.key], total=part.total, completed=part.done, state=part.words)
