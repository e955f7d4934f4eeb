"""Running a handler in a process of its own, which can be ended whatever it does: both sides of the conversation.

The child (`python -m` of this module) reads the job as the first line of its standard input, and writes progress and
the result line by line. It ends with its parent: when its input closes, nobody is left to hear the result.
"""

import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
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
    """The handler's output, or how it failed.

    Raises JobCancelled once the job was cancelled or lost: after the handler gave up, or after `grace()` seconds, when
    the process is ended with all that it started.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
        )  # fmt: skip
        try:
            return _Conversation(kind, attempt, process, report, grace).run(errors)
        finally:
            end_group(process)


def end_group(process: subprocess.Popen) -> None:
    """End the process and everything in its session, and wait for it."""
    for stream in (process.stdin, process.stdout):
        with suppress(OSError):
            if stream:
                stream.close()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Conversation:
    """The messages between a worker and one child."""

    def __init__(
        self,
        kind: JobType,
        attempt: Attempt,
        process: subprocess.Popen,
        report: Report,
        grace: Callable[[], float],
    ) -> None:
        self.kind, self.attempt, self.process, self.report, self.grace = kind, attempt, process, report, grace
        self.answer: dict[str, Any] | None = None
        self.told_at = 0.0

    def run(self, errors: IO[bytes]) -> dict[str, Any] | AttemptFailure | None:
        self._send(json.dumps(self._task()).encode())
        deadline = time.monotonic() + self.kind.timeout if self.kind.timeout else float("inf")
        assert self.process.stdout
        os.set_blocking(self.process.stdout.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            buffer = b""
            while self.answer is None:
                if selector.select(_TICK):
                    data = os.read(self.process.stdout.fileno(), 1 << 20)
                    if not data:
                        break
                    *lines, buffer = (buffer + data).split(b"\n")
                    for line in lines:
                        self._hear(json.loads(line))
                self._stop_if_told()
                if time.monotonic() > deadline:
                    seconds = self.kind.timeout
                    return AttemptFailure(
                        "timeout", f"Not done after {seconds:g} seconds; it was ended.", "", True
                    )
        return self._result(errors)

    def _task(self) -> dict[str, Any]:
        job, handler, model = self.attempt.job, self.kind.handler, self.kind.input_model
        return {
            "id": str(job.id), "job_type": job.job_type, "attempt": job.attempt, "input": job.input_data,
            "handler": _path(handler), "model": _path(model) if model else None,
        }  # fmt: skip

    def _hear(self, message: dict[str, Any]) -> None:
        if "progress" in message:
            self.report(message["progress"], message["message"])
        else:
            self.answer = message

    def _stop_if_told(self) -> None:
        if not self.attempt.stopped:
            return
        if not self.told_at:
            self.told_at = time.monotonic()
            self._send(b"cancel")
        elif time.monotonic() - self.told_at > self.grace():
            raise JobCancelled("The handler did not stop by itself and was ended")

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

    def _send(self, line: bytes) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.write(line + b"\n")
            self.process.stdin.flush()


def _path(thing: Any) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"


def _named(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def child() -> None:
    """Run the handler that the first line of the input names."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not be taken for a message
    job = json.loads(sys.stdin.buffer.readline())
    cancelled = threading.Event()
    threading.Thread(target=_listen, args=(cancelled,), daemon=True).start()
    lock = threading.Lock()

    def send(message: dict[str, Any]) -> None:
        line = json.dumps(message) + "\n"
        with lock:
            out.write(line)
            out.flush()

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
    given = _named(job["model"]).model_validate(job["input"]) if job["model"] else job["input"]
    return _named(job["handler"])(JobContext(UUID(job["id"]), job["job_type"], job["attempt"], given, report))


def _listen(cancelled: threading.Event) -> None:
    for line in sys.stdin.buffer:
        if line.strip() == b"cancel":
            cancelled.set()
    os._exit(3)


if __name__ == "__main__":
    child()
