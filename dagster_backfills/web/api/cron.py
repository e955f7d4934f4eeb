"""`/api/cron/…`: the links of the scoring chain, for whoever schedules them elsewhere. Each waits for its run."""

import time
from datetime import date
from typing import Any

import dagster as dg
from pydantic import ConfigDict
from starlette.concurrency import run_in_threadpool

from dagster_backfills.domains.scoring.chain import newest_day
from dagster_backfills.domains.scoring.days import utc_now
from dagster_backfills.domains.scoring.status import chain_of
from dagster_backfills.domains.scoring.tables import ACTIONS, CHURN, COMMITMENT
from dagster_backfills.engine.results import RESULTS
from dagster_backfills.web.api.backfills import ended
from dagster_backfills.web.api.calls import Answer, Operation, Query
from dagster_backfills.web.auth import require
from dagster_backfills.web.call import Call
from dagster_backfills.web.database import Database
from dagster_backfills.web.refusals import Refused, answer

LINKS = {
    "commitment-scores": (COMMITMENT.asset, "commitment_scores_job"),
    "at-risk-detection": (CHURN.asset, "churn_risk_scores_job"),
    "coach-actions": (ACTIONS.asset, "coach_actions_job"),
}


class Day(Query):
    model_config = ConfigDict(extra="ignore")

    date: str = ""


class Link(Answer):
    success: bool
    date: str
    run_id: str
    status: str
    processed: int
    updated: int
    errors: int
    duration: float
    message: str
    actions_created: int | None = None


async def link(call: Call, wanted: Day) -> Any:
    """Work a link of the scoring chain for yesterday, or for `date`, and wait for it.

    200 when it is done, 500 where it failed, 202 while it goes on. By GET in development only.
    """
    if call.request.method == "GET" and not call.actions.settings.development:
        raise Refused(405, "This is asked for by POST.", "", {"Allow": "POST"})
    require(call.request, "cron", "POST")
    actions = call.actions
    asset, job = LINKS[call.request.url.path.rsplit("/", 1)[-1]]
    began = time.monotonic()
    day = await run_in_threadpool(_day, call.database, wanted.date)
    tags = {"dagster/partition": day.isoformat()}
    run_id = await run_in_threadpool(actions.runs.once, job, None, call.who.name, tags)
    run = await ended(actions, run_id, actions.settings.limits.wait_seconds)
    said = await run_in_threadpool(_said, call.database, asset, day, run)
    code = 200 if run.is_success else 500 if run.is_finished else 202
    return answer({**said, "duration": round(time.monotonic() - began, 3)}, code)


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


def _said(database: Database, asset: str, day: date, run: dg.DagsterRun) -> dict[str, Any]:
    """How the day stands by the chain's own record, and what the run wrote."""
    with database() as conn:
        links = {each.asset: each for each in chain_of(conn, day, 1)[0].links}
        written = {row["table"]: row for row in RESULTS.tables.dicts(conn, run_ids=[run.run_id])}
    found, rows = links[asset], written.get(asset, {"inserted": 0, "updated": 0})
    ours = found.run_id == run.run_id
    more = {"actionsCreated": rows["inserted"]} if asset == ACTIONS.asset else {}
    return {
        "success": run.is_success,
        "date": day,
        "runId": run.run_id,
        "status": run.status.value.lower(),
        "processed": (found.done or 0) + (found.failed or 0) if ours else 0,
        "updated": rows["inserted"] + rows["updated"],
        "errors": (found.failed or 0) if ours else 0,
        "message": (found.reason or "") if ours else "",
        **more,
    }


_GIVES = {200: Link, 202: Link, 500: Link}
routes = [Operation(f"/api/cron/{name}", "cron", link, "GET", "POST", gives=_GIVES) for name in LINKS]
