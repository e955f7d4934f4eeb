"""Launching a run and waiting for its end. Imports Dagster only when a run is launched."""

from collections.abc import Mapping
from typing import Any

from dagster_backfills.cli import errors
from dagster_backfills.cli.follow import Watch


def launch(
    job: str,
    config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    watch: Watch | None = None,
    module: str = "",
    url: str = "",
) -> tuple[str, int]:
    """Run a job of the code location `module` (default: this one) to its end. Returns the run's ID and exit code.

    url: the database that the job writes to. Default: DATABASE_URL.
    """
    from dagster_backfills.cli.run_process import run_job

    run = run_job(job, config, tags, module=module, watch=watch, url=url)
    codes = {"SUCCESS": errors.OK, "CANCELED": errors.INTERRUPTED}
    return run.run_id, codes.get(run.status.value, errors.FAILURES)
