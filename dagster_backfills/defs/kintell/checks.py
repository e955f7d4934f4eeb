"""What must hold of imports and events: the account adds up, no worker is dead, no event is stuck."""

from typing import Any

from dagster_backfills.dagster.checks import CheckRule, CheckRules
from dagster_backfills.defs.kintell.reporting import SESSIONS
from dagster_backfills.domains.kintell.importing.claims import LEASE_SECONDS
from dagster_backfills.domains.kintell.statements import statements

EVENTS_WITHIN_SECONDS = 600
_ASSET = "/".join(SESSIONS.path)


def _no_events(resources: Any) -> str | None:
    return None if resources.kintell.nats else "NATS is not configured; events wait."


_RULES = {
    "imports_add_up": CheckRule(
        _ASSET, "unaccounted_jobs", "A job's counters are those of its rejected rows and batches."
    ),
    "no_dead_imports": CheckRule(_ASSET, "dead_imports", "Whoever holds a job gives a sign of life."),
    "events_leave": CheckRule(
        _ASSET,
        "events_waiting_long",
        f"No event waits for longer than {EVENTS_WITHIN_SECONDS // 60} minutes.",
        warns=True,
        skip_reason=_no_events,
    ),
}
RULES = CheckRules(
    "kintell_checks",
    _RULES,
    statements(),
    {"lease": LEASE_SECONDS, "seconds": EVENTS_WITHIN_SECONDS},
    every_minutes=5,
    needs=frozenset({"kintell"}),
)

kintell_checks = RULES.definition()
