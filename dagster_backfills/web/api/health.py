"""`/health`: needs no authentication, and reveals no secrets."""

import logging
from datetime import UTC, datetime
from typing import Any, Literal

from dagster_backfills.instance.launching import DAEMON_SILENT_SECONDS, daemon_heard
from dagster_backfills.postgres.migrations import require_migrations
from dagster_backfills.redact import redact
from dagster_backfills.web.actions import Actions
from dagster_backfills.web.api.calls import Answer, Operation
from dagster_backfills.web.call import Call
from dagster_backfills.web.events import JobEvents
from dagster_backfills.web.refusals import answer, explained

LOG = logging.getLogger("dagster_backfills.web")


class Health(Answer):
    status: Literal["ok", "degraded", "unavailable"]
    service: Literal["backfills"]
    timestamp: datetime
    problems: list[str]


def health(call: Call) -> Any:
    """Report whether this service, the database and the Dagster daemon work.

    `degraded`: requests are accepted, but runs wait. `unavailable`: requests fail.
    """
    status, problems = _check(call.actions, call.request.app.state.events)
    body = {"status": status, "service": "backfills", "timestamp": datetime.now(UTC), "problems": problems}
    return answer(body, 503 if status == "unavailable" else 200)


def _check(actions: Actions, events: JobEvents) -> tuple[str, list[str]]:
    try:
        require_migrations(actions.database.url)
    except Exception as error:  # nothing works without the database
        LOG.error("unhealthy: %s", redact(str(error)))
        return "unavailable", [redact(explained(error)[1])]
    problems = [] if events.listening else ["Not listening for job changes: event streams get no updates."]
    try:
        heard = daemon_heard(actions.runs.instance)
        if heard is None or (datetime.now(UTC) - heard).total_seconds() > DAEMON_SILENT_SECONDS:
            problems.append("The Dagster daemon sends no heartbeats: launched runs wait until it is running.")
    except Exception as error:
        LOG.error("unhealthy: %s", redact(str(error)))
        problems.append("Dagster's storage can't be read: no runs can be launched.")
    return ("degraded" if problems else "ok"), problems


routes = [Operation("/health", "", health, gives={200: Health, 503: Health})]
