"""What must hold for the queue."""

from dagster_backfills.dagster.checks import CheckRule, CheckRules
from dagster_backfills.defs.queue.assets import KEY
from dagster_backfills.domains.queue.queue import STATEMENTS

_ASSET = "/".join(KEY.path)
_RULES = {
    "no_stuck_jobs": CheckRule(
        _ASSET,
        "stuck_jobs",
        "No job waits for more than ten minutes though it is due, and none is at work past its lease.",
    ),
    "no_type_fails_repeatedly": CheckRule(
        _ASSET,
        "types_failing",
        "No type has three or more jobs that failed for good within a day and were not retried since.",
        warns=True,
    ),
}
RULES = CheckRules(
    "jobs_checks",
    _RULES,
    STATEMENTS,
    {"window_seconds": 24 * 3600, "many": 3},
    every_minutes=5,
)

jobs_checks = RULES.definition()
