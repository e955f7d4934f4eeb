"""The process that runs one handler: job in on its standard input, progress and result out, line by line.

It ends with its parent: when its input closes, nobody is left to hear the result.
"""

import importlib
import json
import os
import sys
import threading
import traceback
from typing import IO, Any
from uuid import UUID

from dagster_backfills.domains.queue.context import JobContext
from dagster_backfills.domains.queue.errors import JobCancelled, JobError
from dagster_backfills.domains.queue.outcome import as_output


def main() -> None:
    """Run the handler that the first line of the input names."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not be taken for a message
    job = json.loads(sys.stdin.buffer.readline())
    cancelled = threading.Event()
    threading.Thread(target=_listen, args=(cancelled,), daemon=True).start()
    lock = threading.Lock()

    def report(percentage: int, message: str | None) -> bool:
        _send(out, lock, {"progress": percentage, "message": message})
        return not cancelled.is_set()

    _send(out, lock, _run(job, report))


def _run(job: dict[str, Any], report: Any) -> dict[str, Any]:
    try:
        given = job["input"]
        if job["model"]:
            given = _named(job["model"]).model_validate(given)
        context = JobContext(UUID(job["id"]), job["job_type"], job["attempt"], given, report)
        return {"result": as_output(_named(job["handler"])(context))}
    except JobCancelled:
        return {"cancelled": True}
    except JobError as error:
        return {
            "failed": error.kind, "text": str(error), "retryable": error.retryable, "trace": traceback.format_exc()
        }  # fmt: skip
    except Exception as error:
        return {
            "failed": type(error).__name__, "text": str(error), "retryable": True, "trace": traceback.format_exc()
        }  # fmt: skip


def _listen(cancelled: threading.Event) -> None:
    for line in sys.stdin.buffer:
        if line.strip() == b"cancel":
            cancelled.set()
    os._exit(3)


def _send(out: IO[str], lock: threading.Lock, message: dict[str, Any]) -> None:
    with lock:
        out.write(json.dumps(message) + "\n")
        out.flush()


def _named(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    main()
