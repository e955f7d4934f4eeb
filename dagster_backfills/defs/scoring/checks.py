"""What must hold of a day once it is scored. The days are those of the run; alone, a check looks at yesterday."""

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
    """What is wrong with one day; `warn`: worth a look, and no error. units: what failed, why, and in which run."""

    what: str
    warn: bool = False
    units: Sequence[Mapping[str, Any]] = ()


Look = Callable[[psycopg.Connection, str, ScoringSettings], Finding | None]


def days_of(tags: dict[str, str]) -> list[str]:
    """The days of a run, by its tags."""
    first = tags.get("dagster/partition") or tags.get("dagster/asset_partition_range_start")
    if first is None:
        return [newest_day(datetime.now(UTC).date()).isoformat()]
    last = tags.get("dagster/asset_partition_range_end", first)
    return list(scoring_days.get_partition_keys_in_range(dg.PartitionKeyRange(first, last)))


def _check(target: Target, name: str, description: str, look: Look) -> dg.AssetChecksDefinition:
    key = dg.AssetKey(target.asset.split("/"))

    @dg.asset_check(asset=key, name=name, description=description, partitions_def=scoring_days)
    def check(
        context: dg.AssetCheckExecutionContext,
        postgres: PostgresResource,
        scoring_settings: dg.ResourceParam[ScoringSettings],
    ) -> dg.AssetCheckResult:
        days = days_of(dict(context.run.tags))
        with postgres.connect() as conn:
            found = {day: look(conn, day, scoring_settings) for day in days}
            conn.rollback()
        if len(days) > 1:
            for day, finding in found.items():  # one bad day reddens that day, in a run of many as well
                context.op_execution_context.log_event(
                    private.evaluated(context.instance, key, day, result_of({day: finding}), name)  # type: ignore[arg-type]
                )
        return result_of(found)

    return check


def result_of(found: Mapping[str, Finding | None]) -> dg.AssetCheckResult:
    """One result over all days; a warning where nothing worse was found."""
    findings = [(day, finding) for day, finding in found.items() if finding is not None]
    metadata: dict[str, Any] = {"days": len(found)} if len(found) > 1 else {}
    if findings:
        metadata["findings"] = table({"day": day, "finding": f.what} for day, f in findings[:_LISTED])
    units = list({unit["failed"]: unit for _, finding in findings for unit in finding.units}.values())
    said = "; ".join(f"{day}: {f.what}" for day, f in findings[:5])
    warn = bool(findings) and all(f.warn for _, f in findings)
    return dg.AssetCheckResult(
        passed=not findings,
        severity=dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR,
        description=(f"{said}. {first_rows(units)}" if units else said) or None,
        metadata={**metadata, **run_links(units)},
    )


def _covered(asset: str) -> Look:
    def look(conn: psycopg.Connection, day: str, settings: ScoringSettings) -> Finding | None:
        coverage = coverage_of(conn, asset, day)
        absent = coverage.expected - coverage.done
        if absent <= 0:
            return None
        outcome, _ = coverage.verdict(settings.max_failed_percent, "members")
        what = f"{absent:,} of {coverage.expected:,} active members have no row, {coverage.failed:,} of them failed"
        cursor = conn.cursor(row_factory=dict_row)
        failed = cursor.execute(STATEMENTS["failed_units"], {"asset": asset, "day": day}).fetchall()
        return Finding(what, warn=outcome == "complete", units=failed)

    return look


def _none_bad(name: str, what: str) -> Look:
    def look(conn: psycopg.Connection, day: str, settings: ScoringSettings) -> Finding | None:
        bad = conn.execute(STATEMENTS[name], {"day": day}).fetchone()[0]  # type: ignore[index]
        return Finding(f"{bad:,} {what}") if bad else None

    return look


def _has_coaches(conn: psycopg.Connection, day: str, settings: ScoringSettings) -> Finding | None:
    at_risk, without = conn.execute(STATEMENTS["coach_coverage"], {"day": day}).fetchone()  # type: ignore[misc]
    if not without:
        return None
    return Finding(f"{without:,} of {at_risk:,} members at risk have no coach", warn=True)


def _steady(conn: psycopg.Connection, day: str, settings: ScoringSettings) -> Finding | None:
    mean, before, day_before = conn.execute(STATEMENTS["mean_scores"], {"day": day}).fetchone()  # type: ignore[misc]
    if mean is None or abs(mean - before) <= settings.distribution_shift_points:
        return None
    what = f"mean score {mean:.1f}, {mean - before:+.1f} points against {day_before} over the same members"
    return Finding(what, warn=True)


every_member_has_a_commitment_score = _check(
    COMMITMENT,
    "every_active_member_has_a_score",
    "Every active member has a score for the day; a few recorded failures are a warning.",
    _covered(COMMITMENT.asset),
)
commitment_scores_in_range = _check(
    COMMITMENT,
    "scores_in_range",
    "Score and factors are 0 to 100, and the band is that of the score.",
    _none_bad("commitment_out_of_range", "rows are out of range"),
)
commitment_scores_are_steady = _check(
    COMMITMENT,
    "distribution_is_steady",
    "The mean score has not moved sharply against the day before.",
    _steady,
)
every_member_has_a_churn_risk = _check(
    CHURN,
    "every_scored_member_has_a_risk",
    "Every active member with a commitment score of the day has a churn risk.",
    _covered(CHURN.asset),
)
churn_risks_in_range = _check(
    CHURN,
    "scores_in_range",
    "Risk is 0 to 100 and was made from the day's commitment score.",
    _none_bad("churn_out_of_range", "rows are out of range or made from another commitment score"),
)
no_duplicate_actions = _check(
    ACTIONS,
    "no_duplicate_action",
    "At most one action a member, coach and day.",
    _none_bad("duplicate_actions", "members and coaches have more than one action"),
)
members_at_risk_have_a_coach = _check(
    ACTIONS,
    "coach_coverage",
    "Every active member at risk has a coach who is told.",
    _has_coaches,
)
