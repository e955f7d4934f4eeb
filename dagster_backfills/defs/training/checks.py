"""What must hold of the records and of their counts, checked after whatever kind of run has written them."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from dagster_backfills.defs.training.tables import ASSETS, COMPLETIONS, PROGRESS
from dagster_backfills.lib.checks import AFTER_EVERY_RUN, check_breaches
from dagster_backfills.lib.postgres.queries import load_queries
from dagster_backfills.lib.postgres.resource import PostgresResource

FRESH_WITHIN_SECONDS = 600

# Check: the asset that it is shown at, its statement, whether it only warns, and the rule.
_RULES: dict[str, tuple[str, str, bool, str]] = {
    "every_member_has_its_records": (
        COMPLETIONS.asset,
        "organizations_lacking_records",
        False,
        "Every organization has one record for each member who is not deactivated and each video.",
    ),
    "no_open_failures": (
        COMPLETIONS.asset,
        "open_failures",
        False,
        "Every member's records and every organization could be written.",
    ),
    "progress_is_counted_right": (
        PROGRESS.asset,
        "wrong_progress",
        False,
        "An organization's progress is what its records say.",
    ),
    "fresh": (
        PROGRESS.asset,
        "stale_organizations",
        True,
        f"No organization waits to be filled or counted for longer than {FRESH_WITHIN_SECONDS // 60} minutes.",
    ),
}


@dg.multi_asset_check(
    name="training_checks",
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
def training_checks(
    context: dg.AssetCheckExecutionContext, postgres: PostgresResource
) -> Iterator[dg.AssetCheckResult]:
    statements = load_queries(Path(__file__).with_name("checks.sql"))
    binds = {"assets": ASSETS, "completions": COMPLETIONS.asset, "seconds": FRESH_WITHIN_SECONDS}
    chosen = {key.name for key in context.selected_asset_check_keys}
    with postgres.connect() as conn:
        for name, (asset, statement, warns, rule) in _RULES.items():
            if name in chosen:
                yield check_breaches(
                    conn,
                    statements[statement],
                    binds,
                    asset=asset,
                    name=name,
                    rule=rule,
                    severity=dg.AssetCheckSeverity.WARN if warns else dg.AssetCheckSeverity.ERROR,
                )
