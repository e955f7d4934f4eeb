"""Asset checks of the queue."""

from dagster_backfills.dagster.checks import CheckRule, CheckRules
from dagster_backfills.defs.queue.assets import KEY
from dagster_backfills.domains.queue.queue import STATEMENTS

_ASSET = "/".join(KEY.path)
_RULES = {
    "no_stuck_jobs": CheckRule(
        _ASSET,
        "stuck_jobs",
        "No due job has waited for more than ten minutes, and no job is processing with an expired lease.",
    ),
    "no_type_fails_repeatedly": CheckRule(
        _ASSET,
        "types_failing",
        "No job type has three or more jobs that failed within the last day and have not been retried.",
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
