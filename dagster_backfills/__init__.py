"""Plan, launch, watch and undo data backfills into Postgres through Dagster.

This is the public API. `PostgresBackfill` is the component that `dg` and a `defs.yaml` refer to.
`load_from_defs_folder` loads a project in which a mistake in one `defs.yaml` does not affect the others. `job_type`
and `JobContext` define a background job type, whose handler raises `JobError` or `PermanentJobError`. Names are
imported lazily, so that a command that does not need Dagster does not load it.
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
