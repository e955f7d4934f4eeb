"""A run of a job that a command waits for. Light: Dagster is loaded once there is one to run."""

from collections.abc import Callable, Mapping
from typing import Any

from dagster_backfills.cli import errors

Watch = Callable[[str, Callable[[], bool]], object]


def launch(
    job: str,
    config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    watch: Watch | None = None,
    module: str = "",
) -> tuple[str, int]:
    """Run a job of the code location, or of the one in `module`, to its end; returns the run's id and the exit code."""
    from dagster_backfills.cli.run_process import run_job

    run = run_job(job, config, tags, module=module, watch=watch)
    codes = {"SUCCESS": errors.OK, "CANCELED": errors.INTERRUPTED}
    return run.run_id, codes.get(run.status.value, errors.FAILURES)
