"""Where the statistics lie and what computes them: shared by the assets and by the job that refreshes them."""

from pathlib import Path

from dagster_backfills.lib.engine.model import Query, Target, Write
from dagster_backfills.lib.postgres.queries import load_queries

USER_PROGRESS_STATS = Target("progress/user_progress_stats", partition_by="cohort_id", unit="user_id")
COHORT_STATS = Target("progress/cohort_stats", partition_by="cohort_id")
ASSETS = [USER_PROGRESS_STATS.asset, COHORT_STATS.asset]


def statement(name: str) -> str:
    """One of the domain's named statements."""
    return load_queries(Path(__file__).with_name("queries.sql"))[name]


def user_progress_stats() -> Write:
    """Every active student's own row."""
    return Write(
        USER_PROGRESS_STATS,
        Query(statement("user_progress_stats")),
        units=Query(statement("user_progress_stats_units")),
    )


def cohort_stats() -> Write:
    """Every cohort's row, from the students' rows of the same transaction."""
    return Write(COHORT_STATS, Query(statement("cohort_stats")))
