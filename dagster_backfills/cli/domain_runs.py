"""Running a domain's refreshing job from the command line, and the failure ledger that tells what is left to mend."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg

from dagster_backfills.lib.postgres.embedded import resolve_database_url
from dagster_backfills.lib.postgres.migrations import require_migrations

# The job of a domain that mends what is in the ledger, and the op that takes its choice.
REFRESHING: dict[str, tuple[str, str]] = {
    "progress": ("refresh_progress_stats", "compute_cohorts"),
    "training": ("refresh_training_completions", "fill_organizations"),
}


@contextmanager
def database() -> Iterator[psycopg.Connection[Any]]:
    """The database, migrated, for the time of one command."""
    url = resolve_database_url()
    require_migrations(url)
    with psycopg.connect(url, autocommit=True, application_name="backfills", connect_timeout=10) as conn:
        yield conn


def refresh(domain: str, choice: Mapping[str, Any]) -> int:
    """Run the domain's refreshing job with this choice, watching it; returns the exit code."""
    from dagster_backfills.cli.launch import exit_code, run_job

    job, op = REFRESHING[domain]
    return exit_code(run_job(job, {"ops": {op: {"config": dict(choice)}}}))
