"""What must hold of imports and events: the account adds up, no worker is dead, no event is stuck."""

from collections.abc import Iterator

import dagster as dg

from dagster_backfills.defs.kintell.claims import LEASE_SECONDS
from dagster_backfills.defs.kintell.reporting import SESSIONS
from dagster_backfills.defs.kintell.resources import KintellSettings
from dagster_backfills.defs.kintell.statements import statements
from dagster_backfills.lib.checks import AFTER_EVERY_RUN, check_breaches
from dagster_backfills.lib.postgres.resource import PostgresResource

EVENTS_WITHIN_SECONDS = 600

# Check: its statement, whether it only warns, and the rule.
_RULES: dict[str, tuple[str, bool, str]] = {
    "imports_add_up": (
        "unaccounted_jobs",
        False,
        "A job's counters are those of its rejected rows and batches.",
    ),
    "no_dead_imports": ("dead_imports", False, "Whoever holds a job gives a sign of life."),
    "events_leave": (
        "events_waiting_long",
        True,
        f"No event waits for longer than {EVENTS_WITHIN_SECONDS // 60} minutes.",
    ),
}


@dg.multi_asset_check(
    name="kintell_checks",
    specs=[
        dg.AssetCheckSpec(name=name, asset=SESSIONS, description=rule, automation_condition=AFTER_EVERY_RUN)
        for name, (_, _, rule) in _RULES.items()
    ],
    can_subset=True,
)
def kintell_checks(
    context: dg.AssetCheckExecutionContext, postgres: PostgresResource, kintell: KintellSettings
) -> Iterator[dg.AssetCheckResult]:
    chosen = {key.name for key in context.selected_asset_check_keys}
    with postgres.connect() as conn:
        for name, (statement, warns, rule) in _RULES.items():
            if name not in chosen:
                continue
            if name == "events_leave" and not kintell.nats:
                yield dg.AssetCheckResult(
                    asset_key=SESSIONS,
                    check_name=name,
                    passed=True,
                    description="NATS is not configured; events wait.",
                )
                continue
            yield check_breaches(
                conn,
                getattr(statements(), statement).sql,
                {"lease": LEASE_SECONDS, "seconds": EVENTS_WITHIN_SECONDS},
                asset="/".join(SESSIONS.path),
                name=name,
                rule=rule,
                severity=dg.AssetCheckSeverity.WARN if warns else dg.AssetCheckSeverity.ERROR,
            )
