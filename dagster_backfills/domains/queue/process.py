"""Running a handler in a process of its own, which can be ended whatever it does."""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from dagster_backfills.domains.queue.errors import JobCancelled
from dagster_backfills.domains.queue.outcome import Failed, Held
from dagster_backfills.domains.queue.redact import redact
from dagster_backfills.domains.queue.registry import JobType

_TICK = 0.1


def run_in_process(
    kind: JobType, held: Held, report: Callable[[int, str | None], bool], grace: Callable[[], float]
) -> dict[str, Any] | Failed | None:
    """The handler's output, or how it failed.

    Raises JobCancelled once the job was cancelled or lost: after the handler gave up, or after `grace()` seconds, when
    the process is ended with all that it started.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster_backfills.domains.queue.child"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
        )  # fmt: skip
        try:
            return _Conversation(kind, held, process, report, grace).run(errors)
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
        held: Held,
        process: subprocess.Popen,
        report: Callable[[int, str | None], bool],
        grace: Callable[[], float],
    ) -> None:
        self.kind, self.held, self.process, self.report, self.grace = kind, held, process, report, grace
        self.answer: dict[str, Any] | None = None
        self.told_at = 0.0

    def run(self, errors: IO[bytes]) -> dict[str, Any] | Failed | None:
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
                    return Failed("timeout", f"Not done after {seconds:g} seconds; it was ended.", "", True)
        return self._result(errors)

    def _task(self) -> dict[str, Any]:
        job, model = self.held.job, self.kind.input_model
        return {
            "id": str(job.id), "job_type": job.job_type, "attempt": job.attempt, "input": job.input_data,
            "handler": self.kind.handler, "model": f"{model.__module__}:{model.__qualname__}" if model else None,
        }  # fmt: skip

    def _hear(self, message: dict[str, Any]) -> None:
        if "progress" in message:
            self.report(message["progress"], message["message"])
        else:
            self.answer = message

    def _stop_if_told(self) -> None:
        if not self.held.stopped:
            return
        if not self.told_at:
            self.told_at = time.monotonic()
            self._send(b"cancel")
        elif time.monotonic() - self.told_at > self.grace():
            raise JobCancelled("The handler did not stop by itself and was ended")

    def _result(self, errors: IO[bytes]) -> dict[str, Any] | Failed | None:
        if self.answer is None:
            code = self.process.wait()
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - 8000))
            tail = redact(errors.read().decode(errors="replace"))
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            return Failed("crashed", f"The handler's process ended with {how}.", tail, True)
        if "cancelled" in self.answer:
            raise JobCancelled("The handler stopped")
        if "failed" in self.answer:
            said = self.answer
            return Failed(said["failed"], redact(said["text"]), redact(said["trace"]), said["retryable"])
        output: dict[str, Any] | None = self.answer["result"]
        return output

    def _send(self, line: bytes) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.write(line + b"\n")
            self.process.stdin.flush()
