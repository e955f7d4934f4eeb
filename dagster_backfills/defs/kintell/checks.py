"""Checks of imports and events: counters match the rows, no worker is dead, no event is stuck."""

from typing import Any

from dagster_backfills.dagster.checks import CheckRule, CheckRules
from dagster_backfills.defs.kintell.reporting import SESSIONS
from dagster_backfills.domains.kintell.importing.jobs import LEASE_SECONDS
from dagster_backfills.domains.kintell.statements import STATEMENTS

EVENTS_WITHIN_SECONDS = 600
_ASSET = "/".join(SESSIONS.path)


def _no_events(resources: Any) -> str | None:
    return None if resources.kintell.nats else "NATS is not configured, so events wait."


_RULES = {
    "imports_add_up": CheckRule(
        _ASSET, "unaccounted_jobs", "Each job's counters match its rejected rows and batches."
    ),
    "no_dead_imports": CheckRule(_ASSET, "dead_imports", "Each running job has a recent heartbeat."),
    "events_leave": CheckRule(
        _ASSET,
        "events_waiting_long",
        f"No event waits longer than {EVENTS_WITHIN_SECONDS // 60} minutes.",
        warns=True,
        skip_reason=_no_events,
    ),
}
RULES = CheckRules(
    "kintell_checks",
    _RULES,
    STATEMENTS,
    {"lease": LEASE_SECONDS, "seconds": EVENTS_WITHIN_SECONDS},
    every_minutes=5,
    needs=frozenset({"kintell"}),
)

kintell_checks = RULES.definition()
