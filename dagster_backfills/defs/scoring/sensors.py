"""Sensors that launch the steps of the chain. Not here: the decisions (`domains.scoring.chain`)."""

from dataclasses import replace
from datetime import datetime

import dagster as dg

from dagster_backfills.dagster.automation import failed_in_a_row
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.scoring import jobs
from dagster_backfills.domains.scoring.chain import (
    ACTIONS_STEP,
    CHURN_STEP,
    COMMITMENT_STEP,
    ChainStep,
    Decision,
    RunStatus,
    decide,
    missed,
    newest_day,
)
from dagster_backfills.domains.scoring.days import last_days, utc_now
from dagster_backfills.domains.scoring.settings import ScoringSettings
from dagster_backfills.domains.scoring.statements import STATEMENTS
from dagster_backfills.engine.back_off import back_off, is_resting

_ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}


def run_status(instance: dg.DagsterInstance) -> RunStatus:
    """Look up the final status of a run: None while it is unfinished, UNKNOWN if Dagster has no record of it."""

    def final_status(run_id: str) -> str | None:
        run = instance.get_run_by_id(run_id)
        if run is None:
            return "UNKNOWN"
        return run.status.value if run.status in _ENDED else None

    return final_status


def defer(decision: Decision, instance: dg.DagsterInstance, job_name: str, now: datetime) -> Decision:
    """Put off a launch while a run of the day is unfinished, and for a growing pause after failed runs.

    Dagster's records also show runs that died before they could record anything about the day.
    """
    tags = {"dagster/partition": decision.day.isoformat()}
    records = instance.get_run_records(dg.RunsFilter(job_name=job_name, tags=tags), limit=12)
    for run in (record.dagster_run for record in records):
        if run.status not in _ENDED:
            return Decision(decision.day, reason=f"waits for run {run.run_id[:8]}, which is unfinished")
    failed = failed_in_a_row(records)
    if not failed:
        return decision
    if is_resting(len(failed), failed[0].update_timestamp, now):
        pause = f"the last {len(failed)} runs failed: the next starts {back_off(len(failed))} after the last"
        return Decision(decision.day, reason=pause)
    return replace(decision, run_key=f"{decision.run_key}:after {failed[0].dagster_run.run_id}")


def _sensor(
    name: str, step: ChainStep, job: "jobs.UnresolvedAssetJobDefinition", description: str
) -> dg.SensorDefinition:
    @dg.sensor(
        name=name,
        job=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=description,
    )
    def tick(
        context: dg.SensorEvaluationContext,
        postgres: PostgresResource,
        scoring_settings: dg.ResourceParam[ScoringSettings],
    ) -> dg.SensorResult | dg.SkipReason:
        instance, final_status = context.instance, run_status(context.instance)
        with postgres.connect() as conn:
            now = utc_now(conn)
            days, states = last_days(conn, newest_day(now.date()), scoring_settings.catch_up_days)
            has_history = STATEMENTS.scored_before(conn, day=days[0])
        if step.after is None:
            decisions, waits = missed(days, states, now, has_history, final_status)
            idle = waits or f"No day is missing up to {days[-1]}."
        else:
            # Days without any run are skipped, except the newest: its skip reason says what it waits for.
            started = [d for d in days if (step.after, d) in states or (step.asset, d) in states]
            decisions = [decide(step, day, now, states, final_status) for day in sorted({*started, days[-1]})]
            idle = f"{step.asset} is complete up to {days[-1]}."
        decisions = [defer(d, instance, job.name, now) if d.run_key else d for d in decisions]
        requests = [
            dg.RunRequest(run_key=d.run_key, partition_key=d.day.isoformat(), tags={"scoring/trigger": name})
            for d in decisions
            if d.run_key
        ]
        if requests:
            return dg.SensorResult(run_requests=requests)
        return dg.SkipReason("; ".join(f"{d.day}: {d.reason}" for d in decisions if d.reason) or idle)

    return tick


missed_scoring_days = _sensor(
    "missed_scoring_days",
    COMMITMENT_STEP,
    jobs.commitment_scores_job,
    "Launches commitment scores for days that the schedule missed, and again if a run was killed.",
)
churn_risk_after_commitment = _sensor(
    "churn_risk_after_commitment",
    CHURN_STEP,
    jobs.churn_risk_scores_job,
    f"Launches {CHURN_STEP.asset} for a day once {CHURN_STEP.after} is complete, at 03:00 UTC at the earliest.",
)
coach_actions_after_churn_risk = _sensor(
    "coach_actions_after_churn_risk",
    ACTIONS_STEP,
    jobs.coach_actions_job,
    f"Launches {ACTIONS_STEP.asset} for a day once {ACTIONS_STEP.after} is complete, at 04:00 UTC at the earliest.",
)
