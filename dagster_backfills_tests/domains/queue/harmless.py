"""Job types for tests. They are in a module of their own, since a child process imports its handler by name."""

import os
import threading
import time
from pathlib import Path

from dagster_backfills.domains.queue.errors import PermanentJobError
from dagster_backfills.domains.queue.registry import JobType, Registry


def noop(job):
    return None


def echo(job):
    return {"echo": job.input}


def wait_for_cancel(job):
    """Reports progress until it is cancelled."""
    for _ in range(600):
        job.progress(10, "still here")
        time.sleep(0.05)


def ignore_cancel(job):
    """Writes its process ID, then ignores every signal that can be ignored."""
    import signal

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(job.input["pid_file"]).write_text(str(os.getpid()))
    time.sleep(120)


def always_fail(job):
    raise RuntimeError(job.input.get("message", "no luck"))


def fail_for_good(job):
    raise PermanentJobError("this can't be mended", kind="hopeless")


def crash(job):
    os._exit(7)


def harmless_types() -> Registry:
    return Registry(
        [
            JobType("noop", noop),
            JobType("echo", echo),
            JobType("echo_process", echo, isolation="process"),
            JobType("wait", wait_for_cancel),
            JobType("wait_process", wait_for_cancel, isolation="process"),
            JobType("deaf", ignore_cancel),
            JobType("deaf_process", ignore_cancel, isolation="process"),
            JobType("slow_process", ignore_cancel, isolation="process", timeout=1),
            JobType("fail", always_fail),
            JobType("fail_process", always_fail, isolation="process"),
            JobType("fail_for_good", fail_for_good),
            JobType("crash", crash, isolation="process"),
        ]
    )
