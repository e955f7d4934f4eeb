"""`/health` and `/openapi.json`: for whoever asks, without a name. Neither says anything that is a secret."""

import logging
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dagster_backfills.postgres.migrations import require_migrations
from dagster_backfills.redact import redact
from dagster_backfills.web.actions import Actions
from dagster_backfills.web.events import JobEvents
from dagster_backfills.web.refusals import answer, explained

LOG = logging.getLogger("dagster_backfills.web")
# The daemon writes every half minute.
_SILENT_SECONDS = 120


async def health(request: Request) -> Response:
    """`ok`; `degraded` where what is asked for waits; `unavailable` where nothing can be answered."""
    status, problems = await run_in_threadpool(_look, request.app.state.actions, request.app.state.events)
    body = {"status": status, "service": "backfills", "timestamp": datetime.now(UTC), "problems": problems}
    return answer(body, 503 if status == "unavailable" else 200)


def _look(actions: Actions, events: JobEvents) -> tuple[str, list[str]]:
    try:
        require_migrations(actions.database.url)
    except Exception as error:  # whatever it is, nothing works without the database
        LOG.error("unhealthy: %s", redact(str(error)))
        return "unavailable", [redact(explained(error)[1])]
    problems = [] if events.listening else ["Changes of jobs are not heard, and followers not told."]
    try:
        beats = actions.runs.instance.get_daemon_heartbeats().values()
        newest = max((beat.timestamp for beat in beats), default=0.0)
        if datetime.now(UTC).timestamp() - newest > _SILENT_SECONDS:
            problems.append("Dagster's daemon is silent: what is launched waits until it works.")
    except Exception as error:
        LOG.error("unhealthy: %s", redact(str(error)))
        problems.append("Dagster's own tables can't be read: nothing can be launched.")
    return ("degraded" if problems else "ok"), problems


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document."""
    text = Path(__file__).with_name("openapi.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


async def openapi(request: Request) -> Response:
    return answer(document())


routes = [
    Route("/health", health, methods=["GET"]),
    Route("/openapi.json", openapi, methods=["GET"]),
]
