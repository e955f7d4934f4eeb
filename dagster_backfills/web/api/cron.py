"""`/api/cron/…`: the links of the scoring chain, for whoever schedules them elsewhere. Each waits for its run."""

import time
from datetime import date
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dagster_backfills.domains.scoring.chain import newest_day
from dagster_backfills.domains.scoring.days import utc_now
from dagster_backfills.domains.scoring.status import chain_of
from dagster_backfills.domains.scoring.tables import ACTIONS, CHURN, COMMITMENT
from dagster_backfills.web.actions import Actions
from dagster_backfills.web.api.backfills import STATEMENTS, ended
from dagster_backfills.web.auth import Identity, require
from dagster_backfills.web.database import Database
from dagster_backfills.web.refusals import Refused, answer
from dagster_backfills.web.runs import RunState

LINKS = {
    "commitment-scores": (COMMITMENT.asset, "commitment_scores_job"),
    "at-risk-detection": (CHURN.asset, "churn_risk_scores_job"),
    "coach-actions": (ACTIONS.asset, "coach_actions_job"),
}


async def link(request: Request) -> Response:
    """Score yesterday, or the day that `date` names, and say how it went."""
    who = _may(request)
    actions: Actions = request.app.state.actions
    asset, job = LINKS[request.url.path.rsplit("/", 1)[-1]]
    began = time.monotonic()
    day = await run_in_threadpool(_day, actions.database, request.query_params.get("date", ""))
    tags = {"dagster/partition": day.isoformat()}
    run_id = await run_in_threadpool(actions.runs.once, job, None, who.name, tags)
    state = await ended(actions, run_id, actions.settings.limits.wait_seconds)
    said = await run_in_threadpool(_said, actions.database, asset, day, state)
    code = 200 if state.succeeded else 500 if state.finished else 202
    return answer({**said, "duration": round(time.monotonic() - began, 3)}, code)


def _may(request: Request) -> Identity:
    """Whoever has the secret. Without one, by GET, only where this is a developer's own."""
    development = request.app.state.settings.development
    if request.method == "GET" and not development:
        raise Refused(405, "This is asked for by POST.", "", {"Allow": "POST"})
    who = require(request, "cron")
    if not who.may("cron", "POST"):
        raise Refused(403, f"{who.name} may not start the chain.", "It needs the scope cron.")
    return who


def _day(database: Database, text: str) -> date:
    with database() as conn:
        newest = newest_day(utc_now(conn).date())
    try:
        day = date.fromisoformat(text) if text else newest
    except ValueError:
        raise Refused(422, f"{text[:40]!r} is not a day.", "Write it as YYYY-MM-DD.") from None
    if day > newest:
        raise Refused(422, f"{day} is not over.", f"The newest day that can be scored is {newest}.")
    return day


def _said(database: Database, asset: str, day: date, state: RunState) -> dict[str, Any]:
    """How the day stands by the chain's own record, and what the run wrote."""
    with database() as conn:
        links = {each.asset: each for each in chain_of(conn, day, 1)[0].links}
        rows = {row[0]: row[1:] for row in conn.execute(STATEMENTS["run_rows"], {"run_id": state.run_id})}
    found, (inserted, updated, _) = links[asset], rows.get(asset, (0, 0, 0))
    ours = found.run_id == state.run_id
    more = {"actionsCreated": inserted} if asset == ACTIONS.asset else {}
    return {
        "success": state.succeeded,
        "date": day,
        "runId": state.run_id,
        "status": state.status,
        "processed": (found.done or 0) + (found.failed or 0) if ours else 0,
        "updated": inserted + updated,
        "errors": (found.failed or 0) if ours else 0,
        "message": (found.reason or "") if ours else "",
        **more,
    }


routes = [Route(f"/api/cron/{name}", link, methods=["GET", "POST"]) for name in LINKS]
