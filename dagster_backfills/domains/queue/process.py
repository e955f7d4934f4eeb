"""Run a handler in its own process, which can always be killed. This module is both the parent and the child.

The parent sends the job to the child (`python -m` of this module), which sends back progress and the result. Messages
are JSON, so that a compromised child can't run code in the parent. The child exits when its parent does.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pkgutil import resolve_name
from typing import IO, Any
from uuid import UUID

from dagster_backfills.domains.queue.attempts import Attempt, AttemptFailure, as_output, failure_of
from dagster_backfills.domains.queue.context import JobContext, Report
from dagster_backfills.domains.queue.queue import Job
from dagster_backfills.domains.queue.registry import JobType
from dagster_backfills.redact import redact

_TICK = 0.1
Outcome = dict[str, Any] | AttemptFailure | None


def run_in_process(kind: JobType, attempt: Attempt, report: Report, grace: Callable[[], float]) -> Outcome:
    """Run the handler and return its output, or how it failed.

    If the job is cancelled or lost, the handler is told, and killed after `grace()` seconds with all its children.
    """
    ours, theirs = Pipe()
    with ours, tempfile.TemporaryFile() as errors:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        try:
            with suppress(EOFError, OSError):  # the child has exited without an answer
                ours.send_bytes(_encoded(_task(kind, attempt.job)))
                return _answer(ours, kind.timeout, attempt, report, grace)
            return _crash(process.wait(), errors)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # including its children
            process.wait()


def _task(kind: JobType, job: Job) -> dict[str, Any]:
    return {
        "id": str(job.id), "job_type": job.job_type, "attempt": job.attempt, "input": job.input_data,
        "handler": _path(kind.handler), "model": kind.input_model and _path(kind.input_model),
    }  # fmt: skip


def _answer(
    child: Connection, timeout: float | None, attempt: Attempt, report: Report, grace: Callable[[], float]
) -> Outcome:
    """Pass on the child's progress until it answers, times out, or does not stop when told to."""
    deadline = time.monotonic() + timeout if timeout else float("inf")
    told_at = 0.0
    while time.monotonic() < deadline:
        if child.poll(_TICK):
            message = json.loads(child.recv_bytes())
            if "progress" not in message:
                return AttemptFailure(**message["failure"]) if "failure" in message else message["result"]
            report(message["progress"], message["message"])
        if attempt.stopped and not told_at:
            told_at = time.monotonic()
            child.send_bytes(b"cancel")
        elif told_at and time.monotonic() - told_at > grace():
            return AttemptFailure(
                "cancelled", "The handler did not stop when cancelled and was killed.", "", False
            )
    return AttemptFailure("timeout", f"The handler timed out after {timeout:g} seconds.", "", True)


def _crash(code: int, errors: IO[bytes]) -> AttemptFailure:
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 8000))
    tail = redact(errors.read().decode(errors="replace"))
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return AttemptFailure("crashed", f"The handler's process ended with {how}.", tail, True)


def _encoded(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()


def _path(handler_or_model: Any) -> str:
    return f"{handler_or_model.__module__}:{handler_or_model.__qualname__}"


def child(connection: Connection) -> None:
    """Run the handler that the parent's first message names."""
    os.set_inheritable(connection.fileno(), False)  # or the handler's own children would keep it open
    job = json.loads(connection.recv_bytes())
    cancelled, lock = threading.Event(), threading.Lock()
    threading.Thread(target=_listen, args=(connection, cancelled), daemon=True).start()

    def report(percentage: int | None, message: str | None) -> bool:
        with lock:
            connection.send_bytes(_encoded({"progress": percentage, "message": message}))
        return not cancelled.is_set()

    try:
        answer = _encoded({"result": as_output(_handle(job, report))})
    except Exception as error:
        answer = _encoded({"failure": asdict(failure_of(error))})
    with lock:
        connection.send_bytes(answer)


def _handle(job: dict[str, Any], report: Report) -> Any:
    input_data = resolve_name(job["model"]).model_validate(job["input"]) if job["model"] else job["input"]
    return resolve_name(job["handler"])(
        JobContext(UUID(job["id"]), job["job_type"], job["attempt"], input_data, report)
    )


def _listen(connection: Connection, cancelled: threading.Event) -> None:
    with suppress(EOFError, OSError):
        while connection.recv_bytes():
            cancelled.set()
    os._exit(3)


if __name__ == "__main__":
    child(Connection(int(sys.argv[1])))
