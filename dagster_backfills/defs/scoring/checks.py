"""Asset checks of scored days. A check evaluates the days of its run, or yesterday if the run has no partition."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import psycopg
from psycopg.rows import dict_row

from dagster_backfills.dagster import private
from dagster_backfills.dagster.checks import first_rows, run_links
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.dagster.tables import table
from dagster_backfills.defs.scoring.partitions import scoring_days
from dagster_backfills.domains.scoring.chain import newest_day
from dagster_backfills.domains.scoring.days import coverage_of
from dagster_backfills.domains.scoring.settings import ScoringSettings
from dagster_backfills.domains.scoring.statements import STATEMENTS
from dagster_backfills.domains.scoring.tables import ACTIONS, CHURN, COMMITMENT
from dagster_backfills.engine.model import Target

_LISTED = 50


@dataclass(frozen=True)
class Finding:
    """A problem of one day. `warn`: severity WARN instead of ERROR. `units`: failed members, with message and run."""

    message: str
    warn: bool = False
    units: Sequence[Mapping[str, Any]] = ()


Evaluate = Callable[[psycopg.Connection, str, ScoringSettings], Finding | None]


def days_of(tags: dict[str, str]) -> list[str]:
    """The days of a run, from its tags."""
    first = tags.get("dagster/partition") or tags.get("dagster/asset_partition_range_start")
    if first is None:
        return [newest_day(datetime.now(UTC).date()).isoformat()]
    last = tags.get("dagster/asset_partition_range_end", first)
    return list(scoring_days.get_partition_keys_in_range(dg.PartitionKeyRange(first, last)))


def _check(target: Target, name: str, description: str, evaluate: Evaluate) -> dg.AssetChecksDefinition:
    key = dg.AssetKey(target.asset.split("/"))

    @dg.asset_check(asset=key, name=name, description=description, partitions_def=scoring_days)
    def check(
        context: dg.AssetCheckExecutionContext,
        postgres: PostgresResource,
        scoring_settings: dg.ResourceParam[ScoringSettings],
    ) -> dg.AssetCheckResult:
        days = days_of(dict(context.run.tags))
        with postgres.connect() as conn:
            results = {day: evaluate(conn, day, scoring_settings) for day in days}
            conn.rollback()
        if len(days) > 1:
            for day, finding in results.items():  # so that each day's partition shows its own result
                context.op_execution_context.log_event(
                    private.evaluated(context.instance, key, day, check_result({day: finding}), name)  # type: ignore[arg-type]
                )
        return check_result(results)

    return check


def check_result(results: Mapping[str, Finding | None]) -> dg.AssetCheckResult:
    """Combine the findings of several days. The severity is WARN only if all findings are warnings."""
    findings = [(day, finding) for day, finding in results.items() if finding is not None]
    metadata: dict[str, Any] = {"days": len(results)} if len(results) > 1 else {}
    if findings:
        metadata["findings"] = table({"day": day, "finding": f.message} for day, f in findings[:_LISTED])
    units = list({unit["failed"]: unit for _, finding in findings for unit in finding.units}.values())
    description = "; ".join(f"{day}: {f.message}" for day, f in findings[:5])
    warn = bool(findings) and all(f.warn for _, f in findings)
    return dg.AssetCheckResult(
        passed=not findings,
        severity=dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR,
        description=(f"{description}. {first_rows(units)}" if units else description) or None,
        metadata={**metadata, **run_links(units)},
    )


def _all_members_have_rows(asset: str) -> Evaluate:
    def evaluate(conn: psycopg.Connection, day: str, settings: ScoringSettings) -> Finding | None:
        coverage = coverage_of(conn, asset, day)
        missing = coverage.expected - coverage.done
        if missing <= 0:
            return None
        outcome, _ = coverage.outcome(settings.max_failed_percent, "members")
        message = f"{missing:,} of {coverage.expected:,} active members have no row, {coverage.failed:,} of them failed"
        cursor = conn.cursor(row_factory=dict_row)
        failed = cursor.execute(STATEMENTS["failed_units"], {"asset": asset, "day": day}).fetchall()
        return Finding(message, warn=outcome == "complete", units=failed)

    return evaluate


def _count_is_zero(name: str, problem: str) -> Evaluate:
    def evaluate(conn: psycopg.Connection, day: str, settings: ScoringSettings) -> Finding | None:
        bad = conn.execute(STATEMENTS[name], {"day": day}).fetchone()[0]  # type: ignore[index]
        return Finding(f"{bad:,} {problem}") if bad else None

    return evaluate


def _all_have_coaches(conn: psycopg.Connection, day: str, settings: ScoringSettings) -> Finding | None:
    at_risk, without = conn.execute(STATEMENTS["coach_coverage"], {"day": day}).fetchone()  # type: ignore[misc]
    if not without:
        return None
    return Finding(f"{without:,} of {at_risk:,} members at risk have no coach", warn=True)


def _mean_is_steady(conn: psycopg.Connection, day: str, settings: ScoringSettings) -> Finding | None:
    mean, before, day_before = conn.execute(STATEMENTS["mean_scores"], {"day": day}).fetchone()  # type: ignore[misc]
    if mean is None or abs(mean - before) <= settings.distribution_shift_points:
        return None
    change = f"{mean - before:+.1f} points compared with {day_before} for the same members"
    return Finding(f"mean score {mean:.1f}, {change}", warn=True)


every_member_has_a_commitment_score = _check(
    COMMITMENT,
    "every_active_member_has_a_score",
    "Every active member has a score for the day. A few recorded failures are only a warning.",
    _all_members_have_rows(COMMITMENT.asset),
)
commitment_scores_in_range = _check(
    COMMITMENT,
    "scores_in_range",
    "Scores and factors are between 0 and 100, and the band matches the score.",
    _count_is_zero("commitment_out_of_range", "rows are out of range"),
)
commitment_scores_are_steady = _check(
    COMMITMENT,
    "distribution_is_steady",
    "The mean score has not changed sharply since the previous day.",
    _mean_is_steady,
)
every_member_has_a_churn_risk = _check(
    CHURN,
    "every_scored_member_has_a_risk",
    "Every active member with a commitment score for the day has a churn risk.",
    _all_members_have_rows(CHURN.asset),
)
churn_risks_in_range = _check(
    CHURN,
    "scores_in_range",
    "Churn risk is between 0 and 100, and was computed from the day's current commitment score.",
    _count_is_zero("churn_out_of_range", "rows are out of range or computed from another commitment score"),
)
members_at_risk_have_a_coach = _check(
    ACTIONS,
    "coach_coverage",
    "Every active member at risk has a coach.",
    _all_have_coaches,
)
