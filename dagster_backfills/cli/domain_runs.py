"""Running a domain's refreshing job from the command line, and the failure ledger that tells what is left to mend."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

import psycopg

from dagster_backfills.postgres.connection import connect
from dagster_backfills.postgres.embedded import resolve_database_url
from dagster_backfills.postgres.migrations import require_migrations
from dagster_backfills.postgres.values import show_every_value

# The job of a domain that mends what is in the ledger.
REFRESHING = {"progress": "refresh_progress_stats", "training": "refresh_training_completions"}
RETRIED = {*REFRESHING, "scoring"}


@contextmanager
def database() -> Iterator[psycopg.Connection[Any]]:
    """The database, migrated, for the time of one command."""
    url = resolve_database_url()
    require_migrations(url)
    with connect(url, autocommit=True, application_name="backfills", connect_timeout=10) as conn:
        show_every_value(conn)
        yield conn


def launch(
    job: str,
    config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    watch: Any = None,
) -> tuple[str, int]:
    """Run a job of the code location and watch it; returns the run's id and the exit code.

    Dagster is loaded here, so that commands that only read the database answer at once.
    """
    from dagster_backfills.cli.launch import exit_code, run_job

    run = run_job(job, config, tags, watch=watch)
    return run.run_id, exit_code(run)


def refresh(domain: str, choice: Mapping[str, Any]) -> int:
    """Run the domain's refreshing job with this choice, watching it; returns the exit code."""
    return launch(REFRESHING[domain], choice)[1]


def retry_failed(domain: str, partitions: Iterable[str]) -> int:
    """Work once more what has failed in a domain; returns the exit code.

    Of scoring, whose days follow from each other, the whole chain of each such day, a run for each stretch of days.
    """
    if domain != "scoring":
        return refresh(domain, {"which": "failed"})
    codes = []
    for first, last in stretches({date.fromisoformat(day) for day in partitions}):
        tags = {"dagster/partition": f"{first}"}
        if first != last:
            tags = {
                "dagster/asset_partition_range_start": f"{first}",
                "dagster/asset_partition_range_end": f"{last}",
            }
        codes.append(launch("scoring_chain_job", None, tags)[1])
    return max(codes, default=0)


def stretches(days: Iterable[date]) -> list[tuple[date, date]]:
    """First and last of each row of days without a gap, the oldest first."""
    found: list[tuple[date, date]] = []
    for day in sorted(days):
        if found and day - found[-1][1] == timedelta(days=1):
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found
