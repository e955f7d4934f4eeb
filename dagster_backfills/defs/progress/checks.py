"""What must hold of the statistics, judged by whatever kind of run has written them."""

from pathlib import Path

from dagster_backfills.defs.progress.tables import ASSETS, COHORT_STATS, USER_PROGRESS_STATS
from dagster_backfills.lib.checks import Rule, Rules
from dagster_backfills.lib.postgres.queries import load_queries

FRESH_WITHIN_SECONDS = 600
_USERS, _COHORTS = USER_PROGRESS_STATS.asset, COHORT_STATS.asset

RULES = Rules(
    "progress_checks",
    {
        "every_active_student_has_stats": Rule(
            _USERS,
            "incomplete_cohorts",
            "Every cohort has its row, every active student has one, and nobody else does.",
        ),
        "stats_in_range": Rule(
            _USERS,
            "out_of_range",
            "Nobody has answered or mastered more questions than there are, and no average is above 100.",
        ),
        "no_open_failures": Rule(_USERS, "open_failures", "Every cohort and every student could be written."),
        "fresh": Rule(
            _COHORTS,
            "stale_cohorts",
            f"No cohort waits for its recomputation for longer than {FRESH_WITHIN_SECONDS // 60} minutes.",
            warns=True,
        ),
        "average_is_mean_of_students": Rule(
            _COHORTS,
            "wrong_averages",
            "A cohort's average is the mean of its students, rounded half up to a whole percent.",
        ),
    },
    lambda: load_queries(Path(__file__).with_name("checks.sql")),
    {"assets": ASSETS, "seconds": FRESH_WITHIN_SECONDS},
)

progress_checks = RULES.definition()
