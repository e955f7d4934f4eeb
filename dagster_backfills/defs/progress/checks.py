"""What must hold of the statistics, checked after whatever kind of run has written them."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from dagster_backfills.defs.progress.tables import ASSETS, COHORT_STATS, USER_PROGRESS_STATS
from dagster_backfills.lib.checks import AFTER_EVERY_RUN, check_breaches
from dagster_backfills.lib.postgres.queries import load_queries
from dagster_backfills.lib.postgres.resource import PostgresResource

FRESH_WITHIN_SECONDS = 600

# Check: the asset that it is shown at, its statement, whether it only warns, and the rule.
_RULES: dict[str, tuple[str, str, bool, str]] = {
    "every_active_student_has_stats": (
        USER_PROGRESS_STATS.asset,
        "incomplete_cohorts",
        False,
        "Every cohort has its row, every active student has one, and nobody else does.",
    ),
    "stats_in_range": (
        USER_PROGRESS_STATS.asset,
        "out_of_range",
        False,
        "Nobody has answered or mastered more questions than there are, and no average is above 100.",
    ),
    "no_open_failures": (
        USER_PROGRESS_STATS.asset,
        "open_failures",
        False,
        "Every cohort and every student could be written.",
    ),
    "fresh": (
        COHORT_STATS.asset,
        "stale_cohorts",
        True,
        f"No cohort waits for its recomputation for longer than {FRESH_WITHIN_SECONDS // 60} minutes.",
    ),
    "average_is_mean_of_students": (
        COHORT_STATS.asset,
        "wrong_averages",
        False,
        "A cohort's average is the mean of its students, rounded half up to a whole percent.",
    ),
}


@dg.multi_asset_check(
    name="progress_checks",
    specs=[
        dg.AssetCheckSpec(
            name=name,
            asset=asset.split("/"),
            description=rule,
            automation_condition=AFTER_EVERY_RUN,
        )
        for name, (asset, _, _, rule) in _RULES.items()
    ],
    can_subset=True,
)
def progress_checks(
    context: dg.AssetCheckExecutionContext, postgres: PostgresResource
) -> Iterator[dg.AssetCheckResult]:
    statements = load_queries(Path(__file__).with_name("checks.sql"))
    chosen = {key.name for key in context.selected_asset_check_keys}
    with postgres.connect() as conn:
        for name, (asset, statement, warns, rule) in _RULES.items():
            if name in chosen:
                yield check_breaches(
                    conn,
                    statements[statement],
                    {"assets": ASSETS, "seconds": FRESH_WITHIN_SECONDS},
                    asset=asset,
                    name=name,
                    rule=rule,
                    severity=dg.AssetCheckSeverity.WARN if warns else dg.AssetCheckSeverity.ERROR,
                )
