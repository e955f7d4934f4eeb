"""The records and the progress made of them as assets, a partition an organization. Their SQL is in `queries.sql`."""

from collections.abc import Iterator

import dagster as dg

from dagster_backfills.defs.training.partitions import organizations_partitions
from dagster_backfills.defs.training.reporting import observe
from dagster_backfills.defs.training.tables import (
    BATCH_SECONDS,
    COMPLETIONS,
    PROGRESS,
    backfill_id_of,
    completions,
    progress,
)
from dagster_backfills.lib.engine.model import WriteSet
from dagster_backfills.lib.postgres.resource import PostgresResource

_COMPLETIONS, _PROGRESS = "employee_training_video_completions", "organization_training_progress"


@dg.multi_asset(
    name="training_completions",
    outs={
        _COMPLETIONS: dg.AssetOut(
            key=COMPLETIONS.asset.split("/"),
            description=(
                "One record for each training video and each member who is not deactivated. What is missing is "
                "created, not completed; what is there is not touched."
            ),
            metadata=COMPLETIONS.metadata(),
            group_name="training",
            kinds={"postgres"},
            is_required=False,
        ),
        _PROGRESS: dg.AssetOut(
            key=PROGRESS.asset.split("/"),
            description=(
                "One row an organization, for its progress chart: members who are not deactivated, their records, "
                "how many are completed, and that in whole percent."
            ),
            metadata=PROGRESS.metadata(),
            group_name="training",
            kinds={"postgres"},
            is_required=False,
        ),
    },
    internal_asset_deps={_COMPLETIONS: set(), _PROGRESS: {dg.AssetKey(COMPLETIONS.asset.split("/"))}},
    can_subset=True,
    partitions_def=organizations_partitions,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def training_completions(
    context: dg.AssetExecutionContext, postgres: PostgresResource
) -> Iterator[dg.Output[WriteSet | None] | dg.AssetObservation]:
    """Both tables in the same batches: an organization's records and their count are one transaction."""
    selected = context.op_execution_context.selected_output_names
    chosen = [name for name in (_COMPLETIONS, _PROGRESS) if name in selected]
    makers = {_COMPLETIONS: lambda: completions(backfill_id_of(context.run)), _PROGRESS: progress}
    write_set = WriteSet([makers[name]() for name in chosen], batch_seconds=BATCH_SECONDS)
    yield dg.Output(write_set, chosen[0])
    for name in chosen[1:]:
        yield dg.Output(None, name)
    yield from observe(postgres, context.run)
