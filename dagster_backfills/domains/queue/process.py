"""Run a handler in its own process, which can always be killed. This module is both the parent and the child.

The parent sends the job to the child (`python -m` of this module), which sends back progress and the result. Messages
are JSON, so that a compromised child can't run code in the parent. The child exits when its parent does.
"""

import importlib
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
from dataclasses import asdict, dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import IO, Any
from uuid import UUID

from dagster_backfills.domains.queue.attempts import Attempt, AttemptFailure, as_output, failure_of
from dagster_backfills.domains.queue.context import JobContext, Report
from dagster_backfills.domains.queue.errors import JobCancelled
from dagster_backfills.domains.queue.registry import JobType
from dagster_backfills.redact import redact

_TICK = 0.1


def run_in_process(
    kind: JobType, attempt: Attempt, report: Report, grace: Callable[[], float]
) -> dict[str, Any] | AttemptFailure | None:
    """Run the handler and return its output, or how it failed.

    Raises JobCancelled if the job was cancelled or lost: once the handler has stopped, or after `grace()` seconds, when
    the process and its children are killed.
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
            return _Child(kind, attempt, process, ours, report, grace).run(errors)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # including its children
            process.wait()


@dataclass
class _Child:
    """One child process, as the worker sees it."""

    kind: JobType
    attempt: Attempt
    process: subprocess.Popen
    connection: Connection
    report: Report
    grace: Callable[[], float]
    answer: dict[str, Any] | None = None
    cancel_sent_at: float = 0.0

    def run(self, errors: IO[bytes]) -> dict[str, Any] | AttemptFailure | None:
        self._send(self._task())
        deadline = time.monotonic() + self.kind.timeout if self.kind.timeout else float("inf")
        with suppress(EOFError, OSError):  # the child has exited, with or without an answer
            while self.answer is None:
                if self.connection.poll(_TICK):
                    self._receive(json.loads(self.connection.recv_bytes()))
                self._cancel_if_stopped()
                if time.monotonic() > deadline:
                    seconds = self.kind.timeout
                    return AttemptFailure(
                        "timeout", f"The handler timed out after {seconds:g} seconds.", "", True
                    )
        return self._result(errors)

    def _task(self) -> dict[str, Any]:
        job, handler, model = self.attempt.job, self.kind.handler, self.kind.input_model
        return {
            "id": str(job.id), "job_type": job.job_type, "attempt": job.attempt, "input": job.input_data,
            "handler": _path(handler), "model": _path(model) if model else None,
        }  # fmt: skip

    def _receive(self, message: dict[str, Any]) -> None:
        if "progress" in message:
            self.report(message["progress"], message["message"])
        else:
            self.answer = message

    def _cancel_if_stopped(self) -> None:
        if not self.attempt.stopped:
            return
        if not self.cancel_sent_at:
            self.cancel_sent_at = time.monotonic()
            self._send("cancel")
        elif time.monotonic() - self.cancel_sent_at > self.grace():
            raise JobCancelled("The handler did not stop when cancelled and was killed")

    def _result(self, errors: IO[bytes]) -> dict[str, Any] | AttemptFailure | None:
        if self.answer is None:
            code = self.process.wait()
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - 8000))
            tail = redact(errors.read().decode(errors="replace"))
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            return AttemptFailure("crashed", f"The handler's process ended with {how}.", tail, True)
        if "cancelled" in self.answer:
            raise JobCancelled("The handler stopped")
        if "failure" in self.answer:
            return AttemptFailure(**self.answer["failure"])
        output: dict[str, Any] | None = self.answer["result"]
        return output

    def _send(self, message: Any) -> None:
        with suppress(OSError):
            self.connection.send_bytes(json.dumps(message).encode())


def _path(handler_or_model: Any) -> str:
    return f"{handler_or_model.__module__}:{handler_or_model.__qualname__}"


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def child(connection: Connection) -> None:
    """Run the handler that the parent's first message names."""
    os.set_inheritable(connection.fileno(), False)  # or the handler's own children would keep it open
    job = json.loads(connection.recv_bytes())
    cancelled, lock = threading.Event(), threading.Lock()
    threading.Thread(target=_listen, args=(connection, cancelled), daemon=True).start()

    def send(message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        with lock:
            connection.send_bytes(data)

    def report(percentage: int | None, message: str | None) -> bool:
        send({"progress": percentage, "message": message})
        return not cancelled.is_set()

    try:
        send({"result": as_output(_handle(job, report))})
    except JobCancelled:
        send({"cancelled": True})
    except Exception as error:
        send({"failure": asdict(failure_of(error))})


def _handle(job: dict[str, Any], report: Report) -> Any:
    input_data = _import(job["model"]).model_validate(job["input"]) if job["model"] else job["input"]
    return _import(job["handler"])(
        JobContext(UUID(job["id"]), job["job_type"], job["attempt"], input_data, report)
    )


def _listen(connection: Connection, cancelled: threading.Event) -> None:
    with suppress(EOFError, OSError):
        while connection.recv_bytes():
            cancelled.set()
    os._exit(3)


if __name__ == "__main__":
    child(Connection(int(sys.argv[1])))
