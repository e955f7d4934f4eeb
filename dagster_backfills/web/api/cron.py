"""`/api/cron/…`: the links of the scoring chain, for external schedulers. Each request waits for its run."""

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
from dagster_backfills.web.api.backfills import wait_for_run
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


async def link(call: Call, query: Day) -> Any:
    """Run a link of the scoring chain for yesterday, or for `date`, and wait for it.

    200 if it succeeded, 500 if it failed, 202 if it is still running. GET is for development only.
    """
    if call.request.method == "GET" and not call.actions.settings.development:
        raise Refused(405, "Method not allowed.", "Use POST.", {"Allow": "POST"})
    require(call.request, "cron", "POST")
    asset, job = LINKS[call.request.url.path.rsplit("/", 1)[-1]]
    began = time.monotonic()
    day, run_id = await run_in_threadpool(_launch, call, job, query.date)
    run = await wait_for_run(call.actions, run_id)
    result = await run_in_threadpool(_result, call.database, asset, day, run)
    code = 200 if run.is_success else 500 if run.is_finished else 202
    return answer({**result, "duration": round(time.monotonic() - began, 3)}, code)


def _launch(call: Call, job: str, text: str) -> tuple[date, str]:
    """The day, and the run of the job that works on it."""
    with call.database() as conn:
        newest = newest_day(utc_now(conn).date())
    try:
        day = date.fromisoformat(text) if text else newest
    except ValueError:
        raise Refused(422, f"{text[:40]!r} is not a date.", "Use YYYY-MM-DD.") from None
    if day > newest:
        raise Refused(422, f"{day} is not over yet.", f"The latest day that can be scored is {newest}.")
    return day, call.actions.runs.once(job, None, call.who.name, {"dagster/partition": day.isoformat()})


def _result(database: Database, asset: str, day: date, run: dg.DagsterRun) -> dict[str, Any]:
    """The day's state as the chain records it, and what the run wrote."""
    with database() as conn:
        links = {each.asset: each for each in chain_of(conn, day, 1)[0].links}
        written = {row["table"]: row for row in RESULTS.tables.dicts(conn, run_ids=[run.run_id])}
    state, rows = links[asset], written.get(asset, {"inserted": 0, "updated": 0})
    by_this_run = state.run_id == run.run_id
    more = {"actionsCreated": rows["inserted"]} if asset == ACTIONS.asset else {}
    return {
        "success": run.is_success,
        "date": day,
        "runId": run.run_id,
        "status": run.status.value.lower(),
        "processed": (state.done or 0) + (state.failed or 0) if by_this_run else 0,
        "updated": rows["inserted"] + rows["updated"],
        "errors": (state.failed or 0) if by_this_run else 0,
        "message": (state.reason or "") if by_this_run else "",
        **more,
    }


_GIVES = {200: Link, 202: Link, 500: Link}
routes = [Operation(f"/api/cron/{name}", "cron", link, "GET", "POST", gives=_GIVES) for name in LINKS]
