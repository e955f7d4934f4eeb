"""What must hold of the records and of their counts, judged by whatever kind of run has written them."""

from pathlib import Path

from dagster_backfills.defs.training.tables import ASSETS, COMPLETIONS, PROGRESS
from dagster_backfills.lib.checks import Rule, Rules
from dagster_backfills.lib.postgres.queries import load_queries

FRESH_WITHIN_SECONDS = 600

RULES = Rules(
    "training_checks",
    {
        "every_member_has_its_records": Rule(
            COMPLETIONS.asset,
            "organizations_lacking_records",
            "Every organization has one record for each member who is not deactivated and each video.",
        ),
        "no_open_failures": Rule(
            COMPLETIONS.asset,
            "open_failures",
            "Every member's records and every organization could be written.",
        ),
        "progress_is_counted_right": Rule(
            PROGRESS.asset, "wrong_progress", "An organization's progress is what its records say."
        ),
        "fresh": Rule(
            PROGRESS.asset,
            "stale_organizations",
            f"No organization waits to be filled or counted for longer than {FRESH_WITHIN_SECONDS // 60} minutes.",
            warns=True,
        ),
    },
    lambda: load_queries(Path(__file__).with_name("checks.sql")),
    {"assets": ASSETS, "completions": COMPLETIONS.asset, "seconds": FRESH_WITHIN_SECONDS},
)

training_checks = RULES.definition()
