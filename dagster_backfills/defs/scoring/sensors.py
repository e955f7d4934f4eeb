"""What starts a link of the chain: a look at the days' states, in a thin shell. The judgement is in `chain.py`."""

from datetime import date

import dagster as dg

from dagster_backfills.dagster.automation import failed_in_a_row
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.scoring import jobs
from dagster_backfills.domains.scoring.chain import (
    ACTIONS_STEP,
    CHURN_STEP,
    COMMITMENT_STEP,
    ChainStep,
    RunStatus,
    Tries,
    after_pause,
    judge,
    missed,
    newest_day,
)
from dagster_backfills.domains.scoring.days import last_days, scored_before, utc_now
from dagster_backfills.domains.scoring.settings import ScoringSettings

_ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}


def run_status(instance: dg.DagsterInstance) -> RunStatus:
    """How a run ended; None while it goes on. A run that Dagster does not know (any more) has ended."""

    def ended(run_id: str) -> str | None:
        run = instance.get_run_by_id(run_id)
        if run is None:
            return "UNKNOWN"
        return run.status.value if run.status in _ENDED else None

    return ended


def _tries(instance: dg.DagsterInstance, job: "jobs.UnresolvedAssetJobDefinition", day: date) -> Tries:
    """What Dagster knows of a job's runs for a day; those that died before they could enter the day as well."""
    records = instance.get_run_records(
        dg.RunsFilter(job_name=job.name, tags={"dagster/partition": day.isoformat()}), limit=12
    )
    unfinished = [r.dagster_run.run_id for r in records if r.dagster_run.status not in _ENDED]
    failed = failed_in_a_row(records)
    return Tries(
        on_its_way=unfinished[0] if unfinished else None,
        failures=len(failed),
        last_failed=failed[0].dagster_run.run_id if failed else None,
        ended_at=failed[0].update_timestamp if failed else None,
    )


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
    def look(
        context: dg.SensorEvaluationContext,
        postgres: PostgresResource,
        scoring_settings: dg.ResourceParam[ScoringSettings],
    ) -> dg.SensorResult | dg.SkipReason:
        instance, ended = context.instance, run_status(context.instance)
        with postgres.connect() as conn:
            now = utc_now(conn)
            days, states = last_days(conn, newest_day(now.date()), scoring_settings.catch_up_days)
            known = scored_before(conn, days[0])
        if step.after is None:
            # Oldest first. A day that was tried and failed is no missed one; one whose run was killed is.
            decisions, waits = missed(days, states, now, known, ended)
            idle = waits or f"No day is missing up to {days[-1]}."
        else:
            # Of days that the chain has never touched only the newest is worth a word.
            touched = [d for d in days if (step.after, d) in states or (step.asset, d) in states]
            worth = sorted({*touched, days[-1]})
            decisions = [judge(step, day, now, states, ended) for day in worth]
            idle = f"{step.asset} is complete up to {days[-1]}."
        decisions = [after_pause(d, _tries(instance, job, d.day), now) if d.run_key else d for d in decisions]
        requests = [
            dg.RunRequest(run_key=d.run_key, partition_key=d.day.isoformat(), tags={"scoring/trigger": name})
            for d in decisions
            if d.run_key
        ]
        if requests:
            return dg.SensorResult(run_requests=requests)
        return dg.SkipReason("; ".join(f"{d.day}: {d.reason}" for d in decisions if d.reason) or idle)

    return look


missed_scoring_days = _sensor(
    "missed_scoring_days",
    COMMITMENT_STEP,
    jobs.commitment_scores_job,
    "Starts commitment scores of days that were missed at 02:00 UTC, and again where the run was killed.",
)
churn_risk_after_commitment = _sensor(
    "churn_risk_after_commitment",
    CHURN_STEP,
    jobs.churn_risk_scores_job,
    f"Starts {CHURN_STEP.asset} of a day when {CHURN_STEP.after} is complete, not before 03:00 UTC.",
)
coach_actions_after_churn_risk = _sensor(
    "coach_actions_after_churn_risk",
    ACTIONS_STEP,
    jobs.coach_actions_job,
    f"Starts {ACTIONS_STEP.asset} of a day when {ACTIONS_STEP.after} is complete, not before 04:00 UTC.",
)
