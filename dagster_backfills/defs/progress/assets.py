"""The two statistics as assets, a partition a cohort. How they are computed stands in `queries.sql`."""

from collections.abc import Iterator

import dagster as dg

from dagster_backfills.defs.progress.checks import RULES
from dagster_backfills.defs.progress.partitions import cohorts_partitions
from dagster_backfills.defs.progress.tables import (
    COHORT_STATS,
    USER_PROGRESS_STATS,
    cohort_stats,
    user_progress_stats,
)
from dagster_backfills.lib.engine.model import WriteSet

_USERS, _COHORTS = "user_progress_stats", "cohort_stats"


@dg.multi_asset(
    name="progress_stats",
    outs={
        _USERS: dg.AssetOut(
            key=USER_PROGRESS_STATS.asset.split("/"),
            description=(
                "One row an active student: questions interacted with and mastered, the questions there are, and "
                "the last activity. Zeros for a student without progress; no row for one who left."
            ),
            metadata=USER_PROGRESS_STATS.metadata(),
            group_name="progress",
            kinds={"postgres"},
            is_required=False,
        ),
        _COHORTS: dg.AssetOut(
            key=COHORT_STATS.asset.split("/"),
            description=(
                "One row a cohort: active students, questions, modules, and the mean completion in whole percent."
            ),
            metadata=COHORT_STATS.metadata(),
            group_name="progress",
            kinds={"postgres"},
            is_required=False,
        ),
    },
    internal_asset_deps={_USERS: set(), _COHORTS: {dg.AssetKey(USER_PROGRESS_STATS.asset.split("/"))}},
    can_subset=True,
    partitions_def=cohorts_partitions,
    backfill_policy=dg.BackfillPolicy.single_run(),
    hooks=RULES.after_failure(),
)
def progress_stats(context: dg.AssetExecutionContext) -> Iterator[dg.Output[WriteSet | None]]:
    """Both tables in the same batches: a cohort's average and its students' rows are one transaction."""
    makers = {_USERS: user_progress_stats, _COHORTS: cohort_stats}
    chosen = [name for name in makers if name in context.op_execution_context.selected_output_names]
    yield dg.Output(WriteSet([makers[name]() for name in chosen]), chosen[0])
    for name in chosen[1:]:
        yield dg.Output(None, name)
