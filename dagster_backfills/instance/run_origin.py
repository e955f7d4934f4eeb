"""Where a run's job comes from, and the command by which Dagster's own launchers have a process work on a run.

Both need names that Dagster does not publish. Not here: creating runs, and processes.
"""

import sys
from typing import Any

import dagster as dg

from dagster_backfills.errors import NotUsableError


def origin_in_location(location: str, repository: str, job: str) -> Any | None:
    """A job as the webserver and the daemon know it: such a run is on the Timeline and can be re-executed.

    None where this Dagster has moved a name: the run is then one without a location.
    """
    try:
        from dagster._core.remote_origin import (
            RegisteredCodeLocationOrigin,
            RemoteJobOrigin,
            RemoteRepositoryOrigin,
        )
    except ImportError:
        return None
    return RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(location), repository), job)


def command_of_run(run_id: str, job_code_origin: Any) -> list[str]:
    """`dagster api execute_run`, which works on a run that is recorded, in the instance of DAGSTER_HOME."""
    try:
        from dagster._grpc.types import ExecuteRunArgs
    except ImportError as error:
        message = "This Dagster can't be asked to work on a run."
        raise NotUsableError(message, "Launch the job in its UI: backfills up") from error
    request = dg.serialize_value(ExecuteRunArgs(job_code_origin, run_id, None))
    return [sys.executable, "-m", "dagster", "api", "execute_run", request]
