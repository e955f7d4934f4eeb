"""What starts a link of the chain: a look at the days' states, in a thin shell. The judgement is in `chain.py`."""

from datetime import UTC, datetime

import dagster as dg

from dagster_backfills.defs.scoring import jobs
from dagster_backfills.defs.scoring.chain import (
    ACTIONS_STEP,
    CHURN_STEP,
    RunStatus,
    Step,
    Verdict,
    due_days,
    judge,
    missed,
)
from dagster_backfills.defs.scoring.days import chain_states, scored_before
from dagster_backfills.defs.scoring.partitions import newest_day
from dagster_backfills.defs.scoring.settings import ScoringSettings
from dagster_backfills.lib.postgres.resource import PostgresResource

_ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}


def utc_now() -> datetime:
    """The clock of the gates."""
    return datetime.now(UTC)


def run_status(instance: dg.DagsterInstance) -> RunStatus:
    """How a run ended; None while it goes on. A run that Dagster does not know (any more) has ended."""

    def ended(run_id: str) -> str | None:
        run = instance.get_run_by_id(run_id)
        if run is None:
            return "UNKNOWN"
        return run.status.value if run.status in _ENDED else None

    return ended


def _answer(verdicts: list[Verdict], trigger: str, idle: str) -> dg.SensorResult | dg.SkipReason:
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


def _chain_sensor(name: str, step: Step, job: "jobs.UnresolvedAssetJobDefinition") -> dg.SensorDefinition:
    @dg.sensor(
        name=name,
        job=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Starts {step.asset} of a day when {step.after} is complete, not before {step.opens:%H:%M} UTC.",
    )
    def look(
        context: dg.SensorEvaluationContext, postgres: PostgresResource, scoring_settings: ScoringSettings
    ) -> dg.SensorResult | dg.SkipReason:
        now = utc_now()
        days = due_days(newest_day(now.date()), scoring_settings.catch_up_days)
        with postgres.connect() as conn:
            states = chain_states(conn, days[0], days[-1])
        ended = run_status(context.instance)
        # Of days that the chain has never touched only the newest is worth a word.
        days = [d for d in days if d == days[-1] or any((a, d) in states for a in (step.after, step.asset))]
        verdicts = [judge(step, day, now, states, ended) for day in days]
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
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts commitment scores of days that 02:00 UTC went by without, while nothing was up to see it.",
)
def missed_scoring_days(
    context: dg.SensorEvaluationContext, postgres: PostgresResource, scoring_settings: ScoringSettings
) -> dg.SensorResult | dg.SkipReason:
    """Oldest first; each day once. A day that was tried and failed is no missed one."""
    now = utc_now()
    days = due_days(newest_day(now.date()), scoring_settings.catch_up_days)
    with postgres.connect() as conn:
        states = chain_states(conn, days[0], days[-1])
        known = scored_before(conn, days[0])
    verdicts, waits = missed(days, states, now, known)
    queued = _requested_days(context.instance)
    verdicts = [v for v in verdicts if v.day.isoformat() not in queued]
    return _answer(verdicts, "missed_scoring_days", waits or f"No day is missing up to {days[-1]}.")


def _requested_days(instance: dg.DagsterInstance) -> set[str]:
    """Days for which a run of the first link is on its way: the schedule's own, say."""
    unfinished = [s for s in dg.DagsterRunStatus if s not in _ENDED]
    found = instance.get_runs(dg.RunsFilter(job_name=jobs.commitment_scores_job.name, statuses=unfinished))
    return {run.tags["dagster/partition"] for run in found if "dagster/partition" in run.tags}
