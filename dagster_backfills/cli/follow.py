"""Watching one run from the command line: a bar on a terminal, a line every few seconds elsewhere. Only reads."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.rows import class_row

from dagster_backfills.cli.output import console, duration, say
from dagster_backfills.lib.postgres.connection import connect

_QUERY = """
    select
        step,
        array_to_string(assets, ', ') as assets,
        partitions_total,
        partitions_done,
        units_total,
        units_done,
        rows_written,
        failures,
        units_per_second,
        time_left
    from backfill.run_progress
    where run_id = %s
    order by started_at, step
"""


@dataclass(frozen=True)
class StepProgress:
    """What one step of a run has done so far."""

    step: str
    assets: str
    partitions_total: int
    partitions_done: int
    units_total: int | None
    units_done: int
    rows_written: int
    failures: int
    units_per_second: float
    time_left: timedelta | None

    def __str__(self) -> str:
        units = "" if self.units_total is None else f", {self.units_done:,} of {self.units_total:,} units"
        left = f", {duration(self.time_left)} left" if self.time_left else ""
        return (
            f"{self.assets}: {self.partitions_done:,} of {self.partitions_total:,} partitions{units}, "
            f"{self.rows_written:,} rows, {self.failures:,} failed, {self.units_per_second:,.0f} units/s{left}"
        )


def follow_run(
    url: str, run_id: str, ended: Callable[[], bool], *, poll: float = 0.5, line_every: float = 5.0
) -> list[StepProgress]:
    """Show how far a run is until `ended()`; return what each step had done then.

    A database that is away for a moment is waited for: the run does the same.
    """
    show: _Bars | _Lines = _Bars() if sys.stderr.isatty() else _Lines(line_every)
    reader = _Reader(url, run_id)
    steps: list[StepProgress] = []
    with show:
        last = False
        while not last:
            last = ended()
            steps = reader.read() or steps
            show.update(steps, last)
            if not last:
                time.sleep(poll)
    reader.close()
    return steps


class _Reader:
    def __init__(self, url: str, run_id: str) -> None:
        self._url, self._run_id = url, run_id
        self._conn: psycopg.Connection[Any] | None = None

    def read(self) -> list[StepProgress]:
        try:
            if self._conn is None:
                self._conn = connect(self._url, autocommit=True, connect_timeout=5)
            return (
                self._conn.cursor(row_factory=class_row(StepProgress))
                .execute(_QUERY, [self._run_id])
                .fetchall()
            )
        except psycopg.OperationalError:
            self.close()
            return []

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None


class _Lines:
    """One line a step, when it has changed and the last is some seconds old; one at the end in any case."""

    def __init__(self, every: float) -> None:
        self._every, self._next = every, 0.0
        self._said: list[str] = []

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, steps: list[StepProgress], last: bool) -> None:
        if not last and time.monotonic() < self._next:
            return
        lines = [str(step) for step in steps]
        if lines != self._said:
            say(*(line for line in lines if line not in self._said))
            self._said, self._next = lines, time.monotonic() + self._every


class _Bars:
    """One bar a step."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "_Bars":
        self._progress.__enter__()
        self._waiting: Any = self._progress.add_task("starting", total=None, state="")
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.__exit__(*error)

    def update(self, steps: list[StepProgress], last: bool) -> None:
        if (steps or last) and self._waiting is not None:
            self._progress.remove_task(self._waiting)
            self._waiting = None
        for step in steps:
            if step.step not in self._tasks:
                self._tasks[step.step] = self._progress.add_task(step.assets, total=None, state="")
            by_units = step.units_total is not None
            self._progress.update(
                self._tasks[step.step],
                total=step.units_total if by_units else step.partitions_total,
                completed=step.units_done if by_units else step.partitions_done,
                state=str(step).removeprefix(f"{step.assets}: "),
            )
