"""`/api/jobs/…`: background jobs are put in, listed, shown, cancelled, retried, followed, and worked off."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from dagster_backfills.domains.queue import queue
from dagster_backfills.postgres.values import plain
from dagster_backfills.web.api.calls import Answer, Body, Operation, Query, camel
from dagster_backfills.web.auth import Identity
from dagster_backfills.web.call import Call
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
    run_after: AwareDatetime | None = None
    max_retries: int | None = Field(default=None, ge=0)
    user_id: str | None = None
    company_id: str | None = None
    training_id: str | None = None
    then: list[Step] = Field(default=[])


class Chosen(Query):
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


class Job(Answer):
    """And every other column of a job."""

    id: UUID
    job_type: str
    status: Literal["pending", "processing", "completed", "failed", "cancelled"]
    priority: int
    user_id: str | None
    company_id: str | None
    progress_percentage: int
    progress_message: str | None
    retry_count: int
    max_retries: int
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    last_error: str | None = None


class Jobs(Answer):
    jobs: list[Job]
    next: datetime | None


class Processing(Answer):
    """The run that works, if there is one."""

    success: bool
    run_id: str | None
    waiting: dict[str, int]
    message: str


def enqueue(call: Call, wanted: Enqueue) -> Any:
    """Put one in. With uniqueKey, the one that has it is returned and none is made."""
    job = call.actions.queue.enqueue(
        call.who,
        wanted.job_type,
        wanted.input_data,
        owner=queue.Owner(wanted.user_id, wanted.company_id, wanted.training_id),
        then=[queue.Step(step.job_type, step.input_data) for step in wanted.then],
        unique_key=wanted.unique_key or None,
        **wanted.model_dump(include={"priority", "run_after", "max_retries"}),
    )
    with call.database() as conn:
        return camel(call.actions.queue.find(conn, str(job), call.who))


def listed(call: Call, wanted: Chosen) -> Any:
    """The newest background jobs; `next` is what `before` is to be for those behind them."""
    binds = wanted.model_dump(exclude={"limit"}) | call.who.mine
    with call.database() as conn:
        found = queue.list_jobs(conn, wanted.limit, **binds)
    more = found[-1]["created_at"] if len(found) == wanted.limit else None
    return {"jobs": [camel(row) for row in found], "next": more}


def show(call: Call) -> Any:
    """Everything about one, its output and its errors."""
    with call.database() as conn:
        return camel(call.actions.queue.find(conn, call.path("job"), call.who))


def cancel(call: Call, wanted: Cancel) -> Any:
    """Cancel one that waits or is at work."""
    return camel(call.actions.queue.cancel(call.path("job"), call.who, wanted.reason))


def retry(call: Call) -> Any:
    """Try one that failed again, with all its retries."""
    return camel(call.actions.queue.retry(call.path("job"), call.who))


def process(call: Call, wanted: Process) -> Any:
    """Have the queue worked off, if any of these types waits; all of them without jobTypes."""
    if call.who.mine:
        raise Refused(403, "This token sees one owner's jobs.", "A run works off everybody's.")
    run, waiting = call.actions.queue.process(wanted.job_types, call.who.name)
    said = f"Run {run} works them off." if run else "None of them waits."
    return {"success": True, "runId": run, "waiting": waiting, "message": said}


async def events(call: Call) -> Any:
    """Changes as server-sent events: `job` with a job's fields, `reload` where some may have been missed.

    With `id`, which may be given again, of these jobs alone; `end` when all of them have ended.
    """
    try:
        wanted = [UUID(each) for each in call.request.query_params.getlist("id")]
    except ValueError:
        raise not_found("job of this id") from None
    if len(wanted) > _FOLLOWED:
        raise Refused(422, f"More than {_FOLLOWED} jobs can't be followed one by one.", "Leave id out.")
    database, who = call.database, call.who
    heard: JobEvents = call.request.app.state.events
    follower = heard.follow(wanted)  # before the look: whatever changes after it is told
    there = await run_in_threadpool(_look, database, who, wanted)
    if len(there) < len(set(wanted)):
        raise not_found("job of one of these ids")
    stream = _stream(follower, database, who, there)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


def _look(database: Database, who: Identity, wanted: list[UUID] | None) -> list[dict[str, Any]]:
    """The jobs that are followed, or those at work and waiting, as they are now."""
    with database() as conn:
        if wanted:
            found = jobs_of(conn, set(wanted))
        else:
            found = [
                row
                for status in ("processing", "pending")
                for row in queue.list_jobs(conn, _FOLLOWED, status=status, **who.mine)
            ]
    return [row for row in found if who.owns(row)]


async def _stream(
    follower: Follower, database: Database, who: Identity, there: list[dict[str, Any]]
) -> AsyncIterator[str]:
    """First how it stands, then what changes. Ends by itself when all that is followed has ended."""
    open_ones = set(follower.jobs)
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


def _event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(plain(data), ensure_ascii=False)}\n\n"


routes = [
    Operation("/api/jobs/events", "jobs", events, gives={200: ("text/event-stream",)}),
    Operation("/api/jobs/process", "jobs", process, "POST", gives={202: Processing}),
    Operation("/api/jobs", "jobs", listed, gives={200: Jobs}),
    Operation("/api/jobs", "jobs", enqueue, "POST", gives={201: Job}),
    Operation("/api/jobs/{job}", "jobs", show, gives={200: Job}),
    Operation("/api/jobs/{job}/cancel", "jobs", cancel, "POST", gives={200: Job}),
    Operation("/api/jobs/{job}/retry", "jobs", retry, "POST", gives={200: Job}),
]
