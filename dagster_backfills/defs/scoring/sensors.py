"""What starts a link of the chain: a look at the days' states, in a thin shell. The judgement is in `chain.py`."""

from datetime import date, datetime

import dagster as dg

from dagster_backfills.dagster.automation import failed_in_a_row
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.scoring import jobs
from dagster_backfills.domains.scoring.chain import (
    ACTIONS_STEP,
    CHURN_STEP,
    ChainStep,
    Decision,
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


def _spaced(
    verdicts: list[Decision],
    instance: dg.DagsterInstance,
    job: "jobs.UnresolvedAssetJobDefinition",
    now: datetime,
) -> list[Decision]:
    return [after_pause(v, _tries(instance, job, v.day), now) if v.run_key else v for v in verdicts]


def _answer(verdicts: list[Decision], trigger: str, idle: str) -> dg.SensorResult | dg.SkipReason:
    launches = [v for v in verdicts if v.run_key]
    reasons = [f"{v.day}: {v.reason}" for v in verdicts if v.reason]
    if not launches:
        return dg.SkipReason("; ".join(reasons) or idle)
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=v.run_key, partition_key=v.day.isoformat(), tags={"scoring/trigger": trigger}
            )
            for v in launches
        ]
    )


def _chain_sensor(
    name: str, step: ChainStep, job: "jobs.UnresolvedAssetJobDefinition"
) -> dg.SensorDefinition:
    @dg.sensor(
        name=name,
        job=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Starts {step.asset} of a day when {step.after} is complete, not before {step.opens:%H:%M} UTC.",
    )
    def look(
        context: dg.SensorEvaluationContext,
        postgres: PostgresResource,
        scoring_settings: dg.ResourceParam[ScoringSettings],
    ) -> dg.SensorResult | dg.SkipReason:
        with postgres.connect() as conn:
            now = utc_now(conn)
            days, states = last_days(conn, newest_day(now.date()), scoring_settings.catch_up_days)
        ended = run_status(context.instance)
        # Of days that the chain has never touched only the newest is worth a word.
        days = [d for d in days if d == days[-1] or any((a, d) in states for a in (step.after, step.asset))]
        verdicts = [judge(step, day, now, states, ended) for day in days]
        verdicts = _spaced(verdicts, context.instance, job, now)
        return _answer(verdicts, name, f"{step.asset} is complete up to {days[-1]}.")

    return look


churn_risk_after_commitment = _chain_sensor(
    "churn_risk_after_commitment", CHURN_STEP, jobs.churn_risk_scores_job
)
coach_actions_after_churn_risk = _chain_sensor(
    "coach_actions_after_churn_risk", ACTIONS_STEP, jobs.coach_actions_job
)


@dg.sensor(
    job=jobs.commitment_scores_job,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts commitment scores of days that 02:00 UTC went by without, and again where the run was killed.",
)
def missed_scoring_days(
    context: dg.SensorEvaluationContext,
    postgres: PostgresResource,
    scoring_settings: dg.ResourceParam[ScoringSettings],
) -> dg.SensorResult | dg.SkipReason:
    """Oldest first. A day that was tried and failed is no missed one; one whose run was killed is."""
    with postgres.connect() as conn:
        now = utc_now(conn)
        days, states = last_days(conn, newest_day(now.date()), scoring_settings.catch_up_days)
        known = scored_before(conn, days[0])
    verdicts, waits = missed(days, states, now, known, run_status(context.instance))
    verdicts = _spaced(verdicts, context.instance, jobs.commitment_scores_job, now)
    return _answer(verdicts, "missed_scoring_days", waits or f"No day is missing up to {days[-1]}.")
