"""Executing a Dagster run from the command line. The run is recorded in the instance, so the UI shows it.

The run executes in a child process. This process watches it, cancels it, and marks the run as ended in the instance
even if the child process dies.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import SQLAlchemyError

from dagster_backfills.cli.child import end_session_of, interrupt_child, start_child
from dagster_backfills.cli.database import database
from dagster_backfills.cli.follow import Watch, follow_run
from dagster_backfills.cli.output import say
from dagster_backfills.dagster.cause import failed_steps
from dagster_backfills.dagster.private import command_of_run
from dagster_backfills.errors import NotUsableError
from dagster_backfills.identity import system_user, user_tags
from dagster_backfills.instance.launching import (
    CODE_LOCATION,
    LAUNCHED_BY,
    create_run,
    open_instance,
    record_launch,
)
from dagster_backfills.redact import redact
from dagster_backfills.state import state_dir

_CANCEL_SECONDS = 60
_STATUS_SECONDS = 2.0
_KEEP_LOGS_SECONDS = 30 * 24 * 3600


def run_job(
    job_name: str,
    run_config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    *,
    module: str = "",
    watch: Watch | None = None,
    url: str = "",
) -> dg.DagsterRun:
    """Run a job to its end and return the finished run.

    `watch(run_id, ended)` is called once the run has been created and must return when `ended()` is true. Without it
    the progress in the database `url` (default: DATABASE_URL) is shown on stderr. Ctrl-C cancels the run;
    KeyboardInterrupt is raised again afterwards.
    Raises UserError for an unknown job or an invalid configuration.
    """
    with open_instance() as instance:
        run_tags = {**(tags or {}), LAUNCHED_BY: "command line", **user_tags(system_user())}
        with database() as conn:
            run = create_run(instance, module or CODE_LOCATION, job_name, run_config or {}, run_tags)
            record_launch(conn, run, system_user())
        with RunProcess(instance, run) as process:
            if watch is None:
                follow_run(url or os.environ["DATABASE_URL"], run.run_id, process.has_ended)
            else:
                watch(run.run_id, process.has_ended)
            return process.finish()


class RunProcess:
    """The child process that executes a run."""

    def __init__(self, instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        self._instance, self._run_id = instance, run.run_id
        self._command = command_of_run(run.run_id, run.job_code_origin)
        self._log = state_dir() / "runs" / f"{run.job_name}-{run.run_id}.log"
        self._next_status = 0.0

    def __enter__(self) -> "RunProcess":
        """Start the process. An exception in the block cancels the run."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        for old in self._log.parent.glob("*.log"):
            if old.stat().st_mtime < time.time() - _KEEP_LOGS_SECONDS:
                old.unlink(missing_ok=True)
        with self._log.open("w") as log:
            self._process = start_child(self._command, stdout=log, stderr=subprocess.STDOUT)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self._cancel()

    def has_ended(self) -> bool:
        """Whether the process has ended. Also interrupts it if the run was cancelled in the UI."""
        if self._process.poll() is not None:
            return True
        if time.monotonic() > self._next_status:
            self._next_status = time.monotonic() + _STATUS_SECONDS
            if self._is_cancelled():
                self._process.send_signal(signal.SIGINT)
                self._next_status += _CANCEL_SECONDS
        return False

    def finish(self) -> dg.DagsterRun:
        """Wait for the process, mark the run as failed if it is still unfinished, and return it."""
        self._process.wait()
        run = self._run()
        if not run.is_finished:
            message = f"The run's process ended unexpectedly (exit code {self._process.returncode})."
            self._instance.report_run_failed(run, message)
            say(message)
            run = self._run()
        if run.status.value == "SUCCESS":
            self._log.unlink(missing_ok=True)
        else:
            failed = failed_steps(self._instance, self._run_id)
            say(*(f"{step}: {redact(reason)}" for step, reason in failed))
            say(f"Run {run.run_id} ended with status {run.status.value}. Log: {self._log}")
        return run

    def _cancel(self) -> None:
        """Cancel the run. Kill its process if that takes too long, or on a second Ctrl-C."""
        try:
            if self._process.poll() is None:
                say("Cancelling the run. Press Ctrl-C again to kill it.")
                self._instance.report_run_canceling(self._run())
                interrupt_child(self._process, _CANCEL_SECONDS)
        except KeyboardInterrupt:
            pass
        finally:
            end_session_of(self._process, signal.SIGKILL)
            if not self._run().is_finished:
                self._instance.report_run_canceled(self._run(), "Cancelled from the command line.")

    def _is_cancelled(self) -> bool:
        try:
            return self._run().status.value in ("CANCELING", "CANCELED")
        except (SQLAlchemyError, DagsterPostgresException):
            return False  # the database is unavailable; the run handles that itself

    def _run(self) -> dg.DagsterRun:
        run = self._instance.get_run_by_id(self._run_id)
        if run is None:
            raise NotUsableError(f"Run {self._run_id} was deleted while it was running.")
        return run
