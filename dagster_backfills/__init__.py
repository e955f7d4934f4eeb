"""Data backfills into Postgres that are planned, launched, watched and undone through Dagster.

What others build on is imported from here. `PostgresBackfill` is what `dg` and a `defs.yaml` find;
`load_from_defs_folder` loads a project in which one bad `defs.yaml` takes no other down. `job_type` and `JobContext`
make a kind of background job, which raises `JobError` or `PermanentJobError`. Each is loaded when it is asked for, so
that a command which needs no Dagster loads none.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster_backfills.components.postgres_backfill import PostgresBackfill
    from dagster_backfills.dagster.project import load_from_defs_folder
    from dagster_backfills.domains.queue.context import JobContext
    from dagster_backfills.domains.queue.errors import JobError, PermanentJobError
    from dagster_backfills.domains.queue.registry import job_type

__all__ = [
    "JobContext",
    "JobError",
    "PermanentJobError",
    "PostgresBackfill",
    "job_type",
    "load_from_defs_folder",
]

_MODULES = {
    "JobContext": "dagster_backfills.domains.queue.context",
    "JobError": "dagster_backfills.domains.queue.errors",
    "PermanentJobError": "dagster_backfills.domains.queue.errors",
    "PostgresBackfill": "dagster_backfills.components.postgres_backfill",
    "job_type": "dagster_backfills.domains.queue.registry",
    "load_from_defs_folder": "dagster_backfills.dagster.project",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
