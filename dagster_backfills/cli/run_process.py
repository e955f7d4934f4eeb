"""The process that works on one run: started, watched, cancelled, and ended in the instance as well."""

import signal
import subprocess
import time

import dagster as dg
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import SQLAlchemyError

from dagster_backfills.cli import errors
from dagster_backfills.cli.child import end_session_of, interrupt_child, start_child
from dagster_backfills.cli.output import say
from dagster_backfills.dagster.private import command_of_run
from dagster_backfills.errors import NotUsableError
from dagster_backfills.state import state_dir

_CANCEL_SECONDS = 60
_STATUS_SECONDS = 2.0
_KEEP_LOGS_SECONDS = 30 * 24 * 3600


class RunProcess:
    """A process in which Dagster works on a run that the instance has recorded."""

    def __init__(self, instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        self._instance, self._run_id = instance, run.run_id
        self._command = command_of_run(run.run_id, run.job_code_origin)
        self._log = state_dir() / "runs" / f"{run.job_name}-{run.run_id}.log"
        self._next_status = 0.0

    def __enter__(self) -> "RunProcess":
        """Start it. What ends the block early cancels the run."""
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
        """Whether the process has ended. Passes on a cancellation that was asked for in the UI."""
        if self._process.poll() is not None:
            return True
        if time.monotonic() > self._next_status:
            self._next_status = time.monotonic() + _STATUS_SECONDS
            if self._is_cancelled():
                self._process.send_signal(signal.SIGINT)
                self._next_status += _CANCEL_SECONDS
        return False

    def finish(self) -> dg.DagsterRun:
        """The run after its process has ended, ended in the instance too."""
        self._process.wait()
        run = self._run()
        if not run.is_finished:
            message = f"The process of this run ended by itself (code {self._process.returncode})."
            self._instance.report_run_failed(run, message)
            run = self._run()
        if run.status.value == "SUCCESS":
            self._log.unlink(missing_ok=True)
        else:
            say(*_failures(self._instance, self._run_id))
            say(f"Run {run.run_id} ended as {run.status.value}. Its log: {self._log}")
        return run

    def _cancel(self) -> None:
        """Cancel the run; if that takes too long, or on a second Ctrl-C, kill its process."""
        try:
            if self._process.poll() is None:
                say("Cancelling the run. Ctrl-C again ends it at once.")
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
            return False  # the database is away for a moment; the run decides what that means for it

    def _run(self) -> dg.DagsterRun:
        run = self._instance.get_run_by_id(self._run_id)
        if run is None:
            raise NotUsableError(f"Run {self._run_id} was deleted while it worked.")
        return run


def _failures(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """One line for each step that failed: the message of whoever raised, without a trace."""
    lines = []
    for record in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records:
        event = record.event_log_entry.dagster_event
        failure = event and event.step_failure_data
        if event and failure and failure.user_failure_data and failure.user_failure_data.description:
            lines.append(f"{event.step_key}: {errors.redact(failure.user_failure_data.description)}")
        elif event and failure and failure.error:
            error = failure.error
            while error.cause is not None:
                error = error.cause
            lines.append(f"{event.step_key}: {errors.redact(error.message.strip())}")
    return lines
