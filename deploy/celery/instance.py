"""Prints the project's `dagster.yaml` with runs on Celery workers: one source for all that they have in common."""

import sys
from pathlib import Path

STOCK = """run_launcher:
  # Runs are processes on the code server's machine; the work is done by Postgres, not by them.
  # Dagster's default, and run monitoring finds a run whose process nobody sees any more by the lock that it held.
  module: dagster_backfills.instance.run_launcher
  class: WatchedRunLauncher
"""
CELERY = """run_launcher:
  # Runs are tasks of Celery workers, on as many machines as there are. The broker is CELERY_BROKER_URL's.
  module: dagster_backfills.instance.celery.launcher
  class: WatchedCeleryRunLauncher
"""
# What the database bears is the limit then, not one machine's memory: two connections a run.
MORE = {
    "    max_concurrent_runs: 6\n": "    max_concurrent_runs: 32\n",
    "        limit: 4\n": "        limit: 24\n",
}


def instance(stock: str) -> str:
    """The settings for Celery, from the project's own. Raises ValueError where these have changed."""
    text = stock
    for old, new in {STOCK: CELERY, **MORE}.items():
        if old not in text:
            raise ValueError(f"dagster.yaml has no {old!r} any more: adapt deploy/celery/instance.py")
        text = text.replace(old, new, 1)
    return text


if __name__ == "__main__":
    sys.stdout.write(instance((Path(__file__).resolve().parents[2] / "dagster.yaml").read_text()))
