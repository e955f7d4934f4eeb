"""Launching a job of the code location from the command line, as a run that the instance knows and the UI shows.

The run works in a process of its own; this one watches it, cancels it, and sees to it that it ends in the
instance as well, whatever becomes of the process.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_backfills.cli import errors
from dagster_backfills.cli.follow import follow_run
from dagster_backfills.cli.output import say
from dagster_backfills.lib.dagster_home import dagster_environment
from dagster_backfills.lib.errors import NotUsableError, UserError
from dagster_backfills.lib.locked_file import lock_holder
from dagster_backfills.lib.postgres.migrations import require_migrations
from dagster_backfills.lib.state import state_dir

if TYPE_CHECKING:
    import dagster as dg

CODE_LOCATION = "dagster_backfills.definitions"
LOCK_TAG = "backfills/lock"
_CANCEL_SECONDS = 60
_STATUS_SECONDS = 2.0

Watch = Callable[[str, Callable[[], bool]], object]


def run_job(
    job_name: str,
    run_config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    *,
    module: str = CODE_LOCATION,
    watch: Watch | None = None,
) -> "dg.DagsterRun":
    """Run a job to its end and return the run as the instance has it then.

    `watch(run_id, ended)` is called when the run is known and returns when `ended()` is true; without it the
    progress is shown on stderr. Ctrl-C cancels the run: it ends as CANCELED and KeyboardInterrupt goes on.
    Raises UserError for an unknown job or a configuration that the job does not take.
    """
    os.environ.update(dagster_environment())
    require_migrations(os.environ["DATABASE_URL"])
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        fail_runs_of_dead_processes(instance)
        launch = _Launch(instance, job_name, module)
        try:
            run_id = launch.start(run_config or {}, tags or {})
            if watch is None:
                follow_run(os.environ["DATABASE_URL"], run_id, launch.has_ended)
            else:
                watch(run_id, launch.has_ended)
            return launch.finish()
        except BaseException:
            launch.cancel()
            raise


def exit_code(run: "dg.DagsterRun") -> int:
    """The command line's exit code for a run that has ended."""
    return {"SUCCESS": errors.OK, "CANCELED": errors.INTERRUPTED}.get(run.status.value, errors.FAILURES)


def fail_runs_of_dead_processes(instance: "dg.DagsterInstance") -> list[str]:
    """End in the instance the runs launched from here whose process and parent were both killed; their ids."""
    import dagster as dg

    alive = [dg.DagsterRunStatus[name] for name in ("NOT_STARTED", "STARTING", "STARTED", "CANCELING")]
    found = instance.get_runs(dg.RunsFilter(statuses=alive, tags={"backfills/launched_by": "command line"}))
    prefix = f"{socket.gethostname()}:{_locks_dir()}/"
    ended = []
    for run in found:
        tag = run.tags.get(LOCK_TAG, "")
        lock = Path(tag.partition(":")[2])
        if tag.startswith(prefix) and lock_holder(lock) is None:
            instance.report_run_failed(run, "The process of this run was killed.")
            lock.unlink(missing_ok=True)
            ended.append(run.run_id)
    return ended


class _Launch:
    """One run and the process that it works in."""

    def __init__(self, instance: "dg.DagsterInstance", job_name: str, module: str) -> None:
        self._instance, self._job_name, self._module = instance, job_name, module
        name = f"{job_name}-{uuid.uuid4().hex[:12]}"
        self._lock = _locks_dir() / f"{name}.lock"
        self._problem, self._log = self._lock.with_suffix(".problem"), self._lock.with_suffix(".log")
        self._worker: subprocess.Popen[str] | None = None
        self._run_id = ""
        self._next_status = 0.0

    def start(self, run_config: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Start the process, wait until its run is recorded, and return the run's id."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        ours = {
            ".dagster/repository": f"__repository__@{self._module}",
            "backfills/launched_by": "command line",
            LOCK_TAG: f"{socket.gethostname()}:{self._lock}",
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
            run = self._instance.get_run_by_id(self._run_id)
            if run and run.status.value in ("CANCELING", "CANCELED"):
                self._worker.send_signal(signal.SIGINT)
                self._next_status += _CANCEL_SECONDS
        return False

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

            tags = {LOCK_TAG: f"{socket.gethostname()}:{self._lock}"}
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


def _locks_dir() -> Path:
    return state_dir() / "runs"


def _listen_to_interrupts() -> None:
    """In the child: shells start background jobs with SIGINT ignored, and a run must be open to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
