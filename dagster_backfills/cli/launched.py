"""One run and the process that it works in: started, watched, cancelled, and ended in the instance as well."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_backfills.cli import errors
from dagster_backfills.cli.output import say
from dagster_backfills.lib.errors import NotUsableError, UserError
from dagster_backfills.lib.locked_file import LOCK_TAG
from dagster_backfills.lib.state import state_dir

if TYPE_CHECKING:
    import dagster as dg

LAUNCHED_BY = {"backfills/launched_by": "command line"}
_CANCEL_SECONDS = 60
_STATUS_SECONDS = 2.0
_KEEP_LOGS_SECONDS = 30 * 24 * 3600


def lock_tag(lock: Path) -> str:
    """The value of the tag for a lock of this machine."""
    return f"{socket.gethostname()}:{lock}"


def locks_dir() -> Path:
    """Where the locks and logs of launched runs lie."""
    return state_dir() / "runs"


class LaunchedRun:
    """One run and the process that it works in."""

    def __init__(self, instance: "dg.DagsterInstance", job_name: str, module: str) -> None:
        self._instance, self._job_name, self._module = instance, job_name, module
        name = f"{job_name}-{uuid.uuid4().hex[:12]}"
        self._lock = locks_dir() / f"{name}.lock"
        self._problem, self._log = self._lock.with_suffix(".problem"), self._lock.with_suffix(".log")
        self._worker: subprocess.Popen[str] | None = None
        self._run_id = ""
        self._next_status = 0.0

    def start(self, run_config: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Start the process, wait until its run is recorded, and return the run's id."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        for old in self._lock.parent.glob("*.log"):
            if old.stat().st_mtime < time.time() - _KEEP_LOGS_SECONDS:
                old.unlink(missing_ok=True)
        ours = {
            ".dagster/repository": f"__repository__@{self._module}",
            **LAUNCHED_BY,
            LOCK_TAG: lock_tag(self._lock),
        }
        request = {
            "module": self._module,
            "job": self._job_name,
            "run_config": run_config,
            "tags": {**tags, **ours},
        }
        request |= {"lock": str(self._lock), "problem": str(self._problem)}
        with self._log.open("w") as log:
            self._worker = subprocess.Popen(
                [sys.executable, "-m", "dagster_backfills.cli.worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                # Ctrl-C is for this process alone, which tells the instance first and the worker then.
                start_new_session=True,
                preexec_fn=_listen_to_interrupts,
            )
        assert self._worker.stdin is not None
        with self._worker.stdin as stdin:
            json.dump(request, stdin)
        while not self._find_run():
            if self._worker.poll() is not None and not self._find_run():
                raise self._explain_end()
            time.sleep(0.3)
        return self._run_id

    def has_ended(self) -> bool:
        """Whether the process has ended. Passes on a cancellation that was asked for in the UI."""
        assert self._worker is not None
        if self._worker.poll() is not None:
            return True
        if time.monotonic() > self._next_status:
            self._next_status = time.monotonic() + _STATUS_SECONDS
            if self._is_cancelled():
                self._worker.send_signal(signal.SIGINT)
                self._next_status += _CANCEL_SECONDS
        return False

    def _is_cancelled(self) -> bool:
        from dagster_postgres.utils import DagsterPostgresException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            run = self._instance.get_run_by_id(self._run_id)
        except (SQLAlchemyError, DagsterPostgresException):
            return False  # the database is away for a moment; the run decides what that means for it
        return run is not None and run.status.value in ("CANCELING", "CANCELED")

    def finish(self) -> "dg.DagsterRun":
        """The run after its process has ended, ended in the instance too."""
        assert self._worker is not None
        self._worker.wait()
        run = self._run()
        if not run.is_finished:
            message = f"The process of this run ended by itself (code {self._worker.returncode})."
            self._instance.report_run_failed(run, message)
            run = self._run()
        self._lock.unlink(missing_ok=True)
        if run.status.value == "SUCCESS":
            self._log.unlink(missing_ok=True)
        else:
            say(*_failures(self._instance, self._run_id))
            say(f"Run {run.run_id} ended as {run.status.value}. Its log: {self._log}")
        return run

    def cancel(self) -> None:
        """Cancel the run; if that takes too long, or on a second Ctrl-C, kill its process."""
        worker = self._worker
        if worker is None or (worker.poll() is not None and not self._find_run()):
            return
        try:
            if worker.poll() is None:
                say("Cancelling the run. Ctrl-C again ends it at once.")
                if self._find_run():
                    self._instance.report_run_canceling(self._run())
                worker.send_signal(signal.SIGINT)
                worker.wait(_CANCEL_SECONDS)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
            if self._find_run() and not self._run().is_finished:
                self._instance.report_run_canceled(self._run(), "Cancelled from the command line.")
            self._lock.unlink(missing_ok=True)

    def _find_run(self) -> bool:
        if not self._run_id:
            import dagster as dg

            tags = {LOCK_TAG: lock_tag(self._lock)}
            self._run_id = next((run.run_id for run in self._instance.get_runs(dg.RunsFilter(tags=tags))), "")
        return bool(self._run_id)

    def _run(self) -> "dg.DagsterRun":
        run = self._instance.get_run_by_id(self._run_id)
        if run is None:
            raise NotUsableError(f"Run {self._run_id} was deleted while it worked.")
        return run

    def _explain_end(self) -> Exception:
        """Why the process ended before there was a run."""
        self._lock.unlink(missing_ok=True)
        if not self._problem.exists():
            return NotUsableError("The run's process ended before it began.", f"Its log: {self._log}")
        problem = json.loads(self._problem.read_text())
        self._problem.unlink()
        kind = UserError if problem["code"] == errors.USAGE else NotUsableError
        if kind is UserError:
            self._log.unlink(missing_ok=True)
        return kind(problem["message"], problem["hint"])


def _failures(instance: "dg.DagsterInstance", run_id: str) -> list[str]:
    """One line for each step that failed: the message of whoever raised, without a trace."""
    import dagster as dg

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


def _listen_to_interrupts() -> None:
    """In the child: shells start background jobs with SIGINT ignored, and a run must be open to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
