"""One run over whichever cohorts need it, however scattered: what automation, repairs and the command line launch."""

from enum import Enum

import dagster as dg
import psycopg
from pydantic import Field

from dagster_backfills.defs.progress.checks import RULES
from dagster_backfills.defs.progress.partitions import cohorts_partitions
from dagster_backfills.defs.progress.status import get_cohort, select_cohorts
from dagster_backfills.defs.progress.tables import cohort_stats, user_progress_stats
from dagster_backfills.lib.engine.model import WriteSet
from dagster_backfills.lib.errors import UserError
from dagster_backfills.lib.postgres.resource import PostgresResource


class Which(Enum):
    """Which cohorts a run computes. Dagster takes an enumeration's names in a run's configuration."""

    due = "due"
    needed = "needed"
    stale = "stale"
    missing = "missing"
    failed = "failed"
    all = "all"
    named = "named"


class RefreshProgress(dg.Config):
    """Which cohorts to compute."""

    which: Which = Field(
        default=Which.due,
        description="due: stale or missing, but for those that failed a moment ago; needed: missing, stale or "
        "failed; stale; missing; failed; all; named: those in `cohorts`.",
    )
    cohorts: list[str] = Field(default=[], description="Cohort ids, with `which: named`.")


@dg.op(
    description="Find the cohorts that are asked for and compute both statistics of each, reporting each by itself.",
    out=dg.Out(io_manager_key="io_manager"),
)
def compute_cohorts(
    context: dg.OpExecutionContext, config: RefreshProgress, postgres: PostgresResource
) -> WriteSet:
    if (config.which is Which.named) != bool(config.cohorts):
        raise dg.Failure("Give `cohorts` with `which: named`, and only then.", allow_retries=False)
    try:
        with postgres.connect() as conn:
            keys = find_cohorts_to_compute(conn, config)
    except UserError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.instance.add_dynamic_partitions(str(cohorts_partitions.name), keys)
    context.log.info(f"{len(keys):,} cohorts to compute ({config.which.value}).")
    return WriteSet([user_progress_stats(), cohort_stats()], keys=keys)


def find_cohorts_to_compute(conn: psycopg.Connection, config: RefreshProgress) -> list[str]:
    """The ids of the cohorts that the configuration asks for. Raises UserError for one that there is not."""
    if config.which is Which.named:
        return [get_cohort(conn, cohort).cohort_id for cohort in dict.fromkeys(config.cohorts)]
    return select_cohorts(conn, config.which.value)


@dg.job(
    description="Compute the statistics of the cohorts that need it, in one run.",
    executor_def=dg.in_process_executor,
    tags={"backfills/domain": "progress"},
    hooks=RULES.after(),
)
def refresh_progress_stats() -> None:
    compute_cohorts()


nightly_progress_stats = dg.ScheduleDefinition(
    name="nightly_progress_stats",
    job=refresh_progress_stats,
    cron_schedule="30 1 * * *",
    execution_timezone="UTC",
    run_config={"ops": {"compute_cohorts": {"config": {"which": "all"}}}},
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Everything once more each night: the safety net below the triggers. What is right is not rewritten.",
)
