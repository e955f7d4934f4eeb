"""Prints the project's `dagster.yaml`, changed to run on Celery workers, so that common settings exist only once."""

import sys
from pathlib import Path

STOCK = """run_launcher:
  # Each run is a process on the code server's machine; Postgres does the actual work. This is Dagster's default
  # launcher, extended so that run monitoring detects a dead process by the lock that it no longer holds.
  module: dagster_backfills.instance.run_launcher
  class: WatchedRunLauncher
"""
CELERY = """run_launcher:
  # Each run is a task of a Celery worker, on any of the machines. CELERY_BROKER_URL names the broker.
  module: dagster_backfills.instance.celery.launcher
  class: WatchedCeleryRunLauncher
"""
# With several machines, the database's connections are the limit (a few for each run), not one machine's memory.
MORE = {
    "    max_concurrent_runs: 6\n": "    max_concurrent_runs: 32\n",
    "        limit: 4\n": "        limit: 24\n",
}


def instance(stock: str) -> str:
    """Return the settings for Celery, given the project's. Raises ValueError if the parts to replace have changed."""
    text = stock
    for old, new in {STOCK: CELERY, **MORE}.items():
        if old not in text:
            raise ValueError(f"dagster.yaml does not contain {old!r}: update deploy/celery/instance.py")
        text = text.replace(old, new, 1)
    return text


if __name__ == "__main__":
    sys.stdout.write(instance((Path(__file__).resolve().parents[2] / "dagster.yaml").read_text()))
