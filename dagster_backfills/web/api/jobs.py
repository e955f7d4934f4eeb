"""`/api/jobs/…`: background jobs are put in, listed, shown, cancelled, retried, followed, and worked off."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from dagster_backfills.domains.queue import queue
from dagster_backfills.postgres.values import plain
from dagster_backfills.web.api.calls import Body, Call, call, camel
from dagster_backfills.web.auth import Identity, require
from dagster_backfills.web.database import Database
from dagster_backfills.web.events import Follower, JobEvents, jobs_of
from dagster_backfills.web.refusals import Refused, not_found

ENDED = ("completed", "failed", "cancelled")
_STILL_HERE_SECONDS = 15
_FOLLOWED = 100


class Step(Body):
    job_type: str
    input_data: dict[str, Any] = Field(default={})


class Enqueue(Body):
    job_type: str
    input_data: dict[str, Any] = Field(default={})
    priority: int = Field(default=5, ge=1, le=10)
    unique_key: str | None = None
    run_after: datetime | None = None
    max_retries: int | None = Field(default=None, ge=0)
    user_id: str | None = None
    company_id: str | None = None
    training_id: str | None = None
    then: list[Step] = Field(default=[])


class Chosen(Body):
    status: str | None = None
    job_type: str | None = None
    user_id: str | None = None
    company_id: str | None = None
    before: datetime | None = None
    limit: int = Field(default=50, ge=1, le=1000)


class Process(Body):
    job_types: list[str] = Field(default=[])


class Cancel(Body):
    reason: str = ""


def enqueue(call: Call) -> Any:
    """Put one in."""
    wanted = call.read(Enqueue)
    if wanted.run_after is not None and wanted.run_after.tzinfo is None:
        raise Refused(422, "runAfter has no time zone.", "Write it so: 2026-06-30T12:00:00Z.")
    job = call.actions.queue.enqueue(
        call.who,
        wanted.job_type,
        wanted.input_data,
        priority=wanted.priority,
        run_after=wanted.run_after,
        unique_key=wanted.unique_key or None,
        max_retries=wanted.max_retries,
        owner=queue.Owner(wanted.user_id, wanted.company_id, wanted.training_id),
        then=[queue.Step(step.job_type, step.input_data) for step in wanted.then],
    )
    with call.database() as conn:
        return camel(call.actions.queue.find(conn, str(job), call.who))


def listed(call: Call) -> Any:
    """The newest first; `next` is what `before` is to be for those behind them."""
    wanted = call.query(Chosen)
    mine = {"user_id": call.who.user_id, "company_id": call.who.company_id}
    binds = wanted.model_dump(exclude={"limit"}) | {
        name: own for name, own in mine.items() if own is not None
    }
    with call.database() as conn:
        found = queue.some_jobs(conn, wanted.limit, **binds)
    more = found[-1]["created_at"] if len(found) == wanted.limit else None
    return {"jobs": [camel(row) for row in found], "next": more}


def show(call: Call) -> Any:
    with call.database() as conn:
        return camel(call.actions.queue.find(conn, call.path("job"), call.who))


def cancel(call: Call) -> Any:
    return camel(call.actions.queue.cancel(call.path("job"), call.who, call.read(Cancel).reason))


def retry(call: Call) -> Any:
    return camel(call.actions.queue.retry(call.path("job"), call.who))


def process(call: Call) -> Any:
    """Have the queue worked off."""
    if call.who.owned:
        raise Refused(403, "This token sees one owner's jobs.", "A run works off everybody's.")
    run, waiting = call.actions.queue.process(call.read(Process).job_types, call.by)
    said = f"Run {run} works them off." if run else "None of them waits."
    return {"success": True, "runId": run, "waiting": waiting, "message": said}


async def events(request: Request) -> Response:
    """Changes as server-sent events: `job`, and `reload` where something may have been missed."""
    who = require(request, "jobs")
    try:
        wanted = [UUID(each) for each in request.query_params.getlist("id")]
    except ValueError:
        raise not_found("job of this id") from None
    if len(wanted) > _FOLLOWED:
        raise Refused(422, f"More than {_FOLLOWED} jobs can't be followed one by one.", "Leave id out.")
    database: Database = request.app.state.database
    heard: JobEvents = request.app.state.events
    follower = heard.follow(wanted)
    try:
        there = await run_in_threadpool(_look, database, who, wanted)
        if len(there) < len(set(wanted)):
            raise not_found("job of one of these ids")
    except BaseException:
        heard.leave(follower)
        raise
    stream = _stream(follower, heard, database, who, there)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


def _look(database: Database, who: Identity, wanted: list[UUID] | None) -> list[dict[str, Any]]:
    """The jobs that are followed, or those at work and waiting, as they are now."""
    with database() as conn:
        if wanted:
            found = jobs_of(conn, set(wanted))
        else:
            mine = {"user_id": who.user_id, "company_id": who.company_id}
            found = [
                row
                for status in ("processing", "pending")
                for row in queue.some_jobs(conn, _FOLLOWED, status=status, **mine)
            ]
    return [row for row in found if who.owns(row)]


async def _stream(
    follower: Follower, heard: JobEvents, database: Database, who: Identity, there: list[dict[str, Any]]
) -> AsyncIterator[str]:
    """First how it stands, then what changes. Ends by itself when all that is followed has ended."""
    open_ones = set(follower.jobs)
    try:
        yield "retry: 2000\n\n"
        while True:
            for job in there:
                yield _event("job", camel(job))
                if job["status"] in ENDED:
                    open_ones.discard(job["id"])
            if follower.jobs and not open_ones:
                yield _event("end", {})
                return
            there = []
            try:
                change = await asyncio.wait_for(follower.changes.get(), _STILL_HERE_SECONDS)
            except TimeoutError:
                yield ": still here\n\n"
                continue
            if change:
                there = [change] if who.owns(change) else []
            elif follower.jobs:
                there = await run_in_threadpool(_look, database, who, list(open_ones))
            else:
                yield _event("reload", {})
    finally:
        heard.leave(follower)


def _event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(plain(data), ensure_ascii=False)}\n\n"


routes = [
    Route("/api/jobs/events", events, methods=["GET"]),
    call("/api/jobs/process", "jobs", process, "POST", status=202),
    call("/api/jobs", "jobs", listed, "GET"),
    call("/api/jobs", "jobs", enqueue, "POST", status=201),
    call("/api/jobs/{job}", "jobs", show),
    call("/api/jobs/{job}/cancel", "jobs", cancel, "POST"),
    call("/api/jobs/{job}/retry", "jobs", retry, "POST"),
]
