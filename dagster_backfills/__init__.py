"""Data backfills into Postgres that are planned, launched, watched and undone through Dagster.

The component `PostgresBackfill` is what `dg` and a `defs.yaml` find here. It is loaded when it is asked for, so that a
command which needs no Dagster loads none.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster_backfills.components.postgres_backfill import PostgresBackfill

__all__ = ["PostgresBackfill"]


def __getattr__(name: str) -> Any:
    if name == "PostgresBackfill":
        from dagster_backfills.components.postgres_backfill import PostgresBackfill

        return PostgresBackfill
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
