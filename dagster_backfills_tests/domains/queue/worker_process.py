"""A worker in its own process, for tests that kill or suspend it: `python -m … URL MAX_SECONDS`."""

import os
import sys
import time
from pathlib import Path

from dagster_backfills.domains.queue.registry import JobType, Registry
from dagster_backfills.domains.queue.worker import Worker, WorkerOptions


def nap(job):
    time.sleep(0.004)


def wait_for_file(job):
    """Report the start, then wait for the file that lets it finish."""
    Path(job.input["begun"]).write_text(str(os.getpid()))
    while not Path(job.input["end"]).exists():
        time.sleep(0.02)
    return {"by": os.getpid()}


TYPES = Registry([JobType("noop", nap), JobType("wait", wait_for_file)])

if __name__ == "__main__":
    seconds = float(sys.argv[2])
    options = WorkerOptions(concurrency=4, idle_seconds=seconds, max_seconds=seconds, poll_seconds=0.2)
    Worker(sys.argv[1], TYPES, options, name=f"worker {os.getpid()}").run()
