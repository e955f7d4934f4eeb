"""The three history tables as assets with daily partitions. Not here: their content (`domains.scoring.histories`)."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import dagster as dg

from dagster_backfills.dagster.catalog import catalog_of, code_references, code_version
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.dagster.sources import observed_tables
from dagster_backfills.defs.scoring.partitions import scoring_days
from dagster_backfills.domains import scoring
from dagster_backfills.domains.scoring.day_record import DayRecord
from dagster_backfills.domains.scoring.lineage import LINEAGE, ON_MEMBER
from dagster_backfills.domains.scoring.reporting import AS_OF
from dagster_backfills.domains.scoring.settings import ScoringSettings
from dagster_backfills.domains.scoring.tables import ACTIONS, CHURN, COMMITMENT
from dagster_backfills.engine.model import Target, WriteSet

Settings = dg.ResourceParam[ScoringSettings]


CATALOG = catalog_of(Path(__file__).parent)
_DOMAIN = Path(scoring.__file__).parent
_VERSION = code_version(
    *(_DOMAIN / name for name in ("queries.sql", "features.py", "rules.py", "action_rules.py"))
)
member_scores = observed_tables(
    "member_scores",
    [
        dg.AssetSpec(
            ["scoring", "member_scores"],
            deps=[["scoring", "commitment_scores"], ["scoring", "churn_risk_scores"]],
            group_name="scoring",
            kinds={"postgres", "table"},
            description="The newest day's score and risk on each member's row, kept up to date by triggers.",
            metadata=CATALOG.metadata("scoring.members", ON_MEMBER, list(ON_MEMBER)),
        )
    ],
)


def _history(target: Target, upstream: Sequence[str], description: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=target.asset.split("/"),
        deps=[["scoring", table] for table in upstream],
        description=f"{description} {AS_OF}",
        metadata={
            **target.metadata(),
            **CATALOG.metadata(target.asset.replace("/", "."), LINEAGE[target.asset]),
            **code_references(
                [(_DOMAIN / "histories.py", 1, "histories"), (_DOMAIN / "queries.sql", 1, "queries")]
            ),
        },
        code_version=_VERSION,
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=26)),
        partitions_def=scoring_days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name="scoring",
        kinds={"postgres", "pandas"},
    )
    def history(
        context: dg.AssetExecutionContext, postgres: PostgresResource, scoring_settings: Settings
    ) -> WriteSet:
        return day_by_day(context, context.partition_keys, postgres, scoring_settings, target)

    return history


commitment_scores = _history(
    COMMITMENT,
    ["members", "visits"],
    "One row per active member and day: the commitment score as of that day, its four factors, time decay, velocity, "
    "risk flags and band. The newest day's score is also stored in scoring.members.",
)
churn_risk_scores = _history(
    CHURN,
    ["commitment_scores", "members"],
    "One row per active member and day: churn risk level and score, computed from the day's commitment score.",
)
coach_actions = _history(
    ACTIONS,
    ["churn_risk_scores", "members", "member_coaches"],
    "At most one row per member, coach and day: the action to take for a member at risk, and the reasons.",
)


def day_by_day(
    context: dg.AssetExecutionContext | dg.OpExecutionContext,
    keys: Sequence[str],
    postgres: PostgresResource,
    settings: ScoringSettings,
    target: Target,
    gym: str | None = None,
) -> WriteSet:
    """Write the history for these days, of all members or one gym's. Each day is processed separately, oldest first."""
    from dagster_backfills.domains.scoring.histories import write_of  # its rules import pandas

    record = DayRecord(
        target,
        connect=postgres.connect,
        log=context.log,
        gym=gym,
        basis=f"weights {settings.parsed_weights.version}" if target is COMMITMENT else "",
        own_runs=_own_runs(context.run),
        last_day=max(keys),
        max_failed_percent=settings.max_failed_percent,
    )
    return WriteSet(
        [write_of(target, settings.parsed_weights, gym)],
        keys=sorted(keys),
        partitions_def=scoring_days,
        settings=settings.engine(),
        around=record.around,
    )


def _own_runs(run: dg.DagsterRun) -> list[str]:
    """This run, and the runs that it automatically retries. A manual re-execution does not count as a retry."""
    retried = (run.root_run_id, run.parent_run_id) if "dagster/retry_number" in run.tags else ()
    return [run.run_id, *(each for each in retried if each)]
