"""Scoring jobs: one for each asset of the chain, one for all three in sequence, and the daily schedule."""

from typing import TYPE_CHECKING

import dagster as dg

from dagster_backfills.dagster.jobs import Plan, plan_job
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.scoring.partitions import scoring_days
from dagster_backfills.domains.scoring.chain import newest_day
from dagster_backfills.domains.scoring.days import utc_now
from dagster_backfills.domains.scoring.plan import plan_days
from dagster_backfills.domains.scoring.settings import setting_at_load, settings_from
from dagster_backfills.domains.scoring.status import choose
from dagster_backfills.domains.scoring.tables import ACTIONS, CHAIN, CHURN, COMMITMENT
from dagster_backfills.engine.model import Target
from dagster_backfills.engine.plan import Report

if TYPE_CHECKING:
    from dagster_backfills.dagster.private import UnresolvedAssetJobDefinition


def run_tags() -> dict[str, str]:
    """Tags of a daily run: its maximum runtime, and retries if the process dies, but not if the data is bad."""
    return {
        "backfills/domain": "scoring",
        "dagster/max_runtime": str(setting_at_load("max_runtime_seconds")),
        "dagster/max_retries": "2",
        "dagster/retry_on_asset_or_op_failure": "false",
        "dagster/retry_strategy": "FROM_FAILURE",
    }


def _job(name: str, targets: list[Target], description: str) -> "UnresolvedAssetJobDefinition":
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*(t.asset.split("/") for t in targets)),
        partitions_def=scoring_days,
        description=description,
        tags=run_tags(),
        executor_def=dg.in_process_executor,
    )


commitment_scores_job = _job("commitment_scores_job", [COMMITMENT], "Computes commitment scores of a day.")
churn_risk_scores_job = _job(
    "churn_risk_scores_job", [CHURN], "Computes churn risk of a day from its commitment scores."
)
coach_actions_job = _job(
    "coach_actions_job", [ACTIONS], "Creates coach actions of a day from its churn risk."
)
scoring_chain_job = _job(
    "scoring_chain_job", list(CHAIN), "Computes all three assets of a day in sequence, at any time of day."
)


def _plan(context: dg.OpExecutionContext, config: Plan) -> Report:
    connect = context.resources.postgres.connect
    with connect() as conn:
        days = choose(conn, config.which, config.partitions)
    return plan_days(connect, days, settings_from(), context.log.warning)


plan_scoring = plan_job("scoring", "scoring", "postgres", _plan)


@dg.schedule(
    job=commitment_scores_job,
    cron_schedule="0 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="02:00 UTC: commitment scores of the previous day. Sensors launch the later steps of the chain.",
)
def daily_scoring_schedule(
    context: dg.ScheduleEvaluationContext, postgres: PostgresResource
) -> dg.RunRequest | dg.SkipReason:
    """Score the day before the tick's scheduled time, so that a late tick still scores its own day."""
    newest = newest_day(context.scheduled_execution_time.date())
    with postgres.connect() as conn:
        now = utc_now(conn)
    if newest_day(now.date()) < newest:
        return dg.SkipReason(f"{newest} has not ended: the database's time is {now:%Y-%m-%d %H:%M} UTC.")
    day = newest.isoformat()
    return dg.RunRequest(
        run_key=f"{COMMITMENT.asset}:{day}", partition_key=day, tags={"scoring/trigger": "schedule"}
    )
