"""Watching an import from the command line: a bar on a terminal, plain lines in a pipe. Only reads."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import psycopg

from dagster_backfills.cli.domain_runs import database
from dagster_backfills.cli.output import console, duration, say

if TYPE_CHECKING:
    from dagster_backfills.defs.kintell.account import Job

LINE_SECONDS = 5.0
POLL_SECONDS = 0.3
_QUERY = """
    select id, status, total_rows, processed_rows, failed_rows
    from kintell.backfill_jobs where run_id = %s order by started_at desc nulls last limit 1
"""


def watch_import(run_id: str, ended: Callable[[], bool]) -> None:
    """Show how far the import of a run is, until the run has ended. A database that is away is waited for."""
    show = _Bar() if sys.stderr.isatty() else _Lines(run_id)
    with show:
        last = False
        while not last:
            last = ended()
            try:
                with database() as conn:
                    while True:
                        row = conn.execute(_QUERY, [run_id]).fetchone()
                        show.update(row, last)
                        if last:
                            return
                        time.sleep(POLL_SECONDS)
                        last = ended()
            except psycopg.OperationalError:
                time.sleep(POLL_SECONDS)


def newest_job_of_run(
    conn: psycopg.Connection[Any], run_id: str, job: str | None, file: str | None
) -> "Job | None":
    """The job that a run worked on; for a run that found nothing to do, the one that has its file."""
    from dagster_backfills.defs.kintell.account import load_job

    row = conn.execute(_QUERY, [run_id]).fetchone()
    if row is None and not job and file:
        row = conn.execute(
            "select id from kintell.backfill_jobs where file_url = %s order by created_at desc limit 1",
            [file],
        ).fetchone()
    found = row[0] if row else job
    return load_job(conn, found) if found else None


def verdict_of(run_id: str) -> dict[str, Any] | None:
    """What a dry run found, as its run has it."""
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        for record in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_OUTPUT).records:
            event = record.event_log_entry.dagster_event
            verdict = event.step_output_data.metadata.get("verdict") if event else None
            if verdict:
                return cast(dict[str, Any], verdict.value)
    return None


class _Lines:
    def __init__(self, run_id: str) -> None:
        self._next, self._said, self._began = 0.0, "", time.monotonic()
        say(f"Run {run_id}")

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, row: tuple[Any, ...] | None, last: bool) -> None:
        if row is None or (not last and time.monotonic() < self._next):
            return
        line = _line(row, time.monotonic() - self._began)
        if line != self._said:
            say(line)
            self._said, self._next = line, time.monotonic() + LINE_SECONDS


class _Bar:
    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console(stderr=True),
        )
        self._task: Any = self._progress.add_task("import", total=None, state="starting")

    def __enter__(self) -> "_Bar":
        self._progress.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.__exit__(*error)

    def update(self, row: tuple[Any, ...] | None, last: bool) -> None:
        if row:
            _, status, total, processed, failed = row
            state = f"{processed:,} of {total:,} rows, {failed:,} rejected, {status}"
            self._progress.update(
                self._task, total=max(total, 1), completed=processed if total else 1, state=state
            )


def _line(row: tuple[Any, ...], seconds: float) -> str:
    _, status, total, processed, failed = row
    percent = 100 * processed / total if total else 100.0
    rate = processed / seconds if seconds else 0.0
    left = f", {duration((total - processed) / rate)} left" if rate and processed < total else ""
    return f"{status}: {percent:.1f} % ({processed:,} of {total:,} rows), {failed:,} rejected{left}"
