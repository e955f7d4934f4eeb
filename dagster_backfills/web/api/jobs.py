"""`/api/jobs/…`: enqueueing, listing, cancelling, retrying, following and processing background jobs."""

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
from dagster_backfills.web.events import Follower, JobEvents
from dagster_backfills.web.refusals import Refused, not_found

ENDED = ("completed", "failed", "cancelled")
_KEEP_ALIVE_SECONDS = 15
_MAX_FOLLOWED = 100


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


class Filter(Query):
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
    """A job. Responses have all other columns of `jobs.background_jobs` too."""

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
    """The run that processes the queue, if there is one."""

    success: bool
    run_id: str | None
    waiting: dict[str, int]
    message: str


def enqueue(call: Call, body: Enqueue) -> Any:
    """Enqueue a job. If a job with the same uniqueKey exists, return that one instead."""
    job = call.actions.queue.enqueue(
        call.who,
        body.job_type,
        body.input_data,
        owner=queue.Owner(body.user_id, body.company_id, body.training_id),
        then=[queue.Step(step.job_type, step.input_data) for step in body.then],
        unique_key=body.unique_key or None,
        **body.model_dump(include={"priority", "run_after", "max_retries"}),
    )
    with call.database() as conn:
        return camel(call.actions.queue.find(conn, str(job), call.who))


def listed(call: Call, query: Filter) -> Any:
    """List the newest jobs. Pass `next` as `before` to get the next page."""
    binds = query.model_dump(exclude={"limit"}) | call.who.mine
    with call.database() as conn:
        rows = queue.list_jobs(conn, query.limit, **binds)
    more = rows[-1]["created_at"] if len(rows) == query.limit else None
    return {"jobs": [camel(row) for row in rows], "next": more}


def show(call: Call) -> Any:
    """Show a job with its output and errors."""
    with call.database() as conn:
        return camel(call.actions.queue.find(conn, call.path("job"), call.who))


def cancel(call: Call, body: Cancel) -> Any:
    """Cancel a pending or processing job."""
    return camel(call.actions.queue.cancel(call.path("job"), call.who, body.reason))


def retry(call: Call) -> Any:
    """Retry a failed job, with all its retries."""
    return camel(call.actions.queue.retry(call.path("job"), call.who))


def process(call: Call, body: Process) -> Any:
    """Launch a run that processes the queue if jobs of these types are waiting. Without jobTypes: of any type."""
    if call.who.mine:
        raise Refused(403, "This token is limited to one owner.", "A run processes all owners' jobs.")
    run, waiting = call.actions.queue.process(body.job_types, call.who.name)
    message = f"Run {run} processes them." if run else "No jobs are waiting."
    return {"success": True, "runId": run, "waiting": waiting, "message": message}


async def events(call: Call) -> Any:
    """Stream job changes as server-sent events: `job` with the job's fields, `reload` if some may have been missed.

    With `id` (repeatable), only these jobs are followed, and `end` is sent when all of them have ended.
    """
    try:
        ids = [UUID(each) for each in call.request.query_params.getlist("id")]
    except ValueError:
        raise not_found("job with this ID") from None
    if len(ids) > _MAX_FOLLOWED:
        raise Refused(422, f"At most {_MAX_FOLLOWED} jobs can be followed by ID.", "Omit id to follow all.")
    database, who = call.database, call.who
    job_events: JobEvents = call.request.app.state.events
    follower = job_events.follow(ids)  # before reading the jobs, so that no later change is missed
    if ids:
        jobs = await run_in_threadpool(_read, database, who, ids=ids)
    else:
        jobs = [
            job
            for status in ("processing", "pending")
            for job in await run_in_threadpool(_read, database, who, status=status)
        ]
    if len(jobs) < len(set(ids)):
        raise not_found("job with one of these IDs")
    stream = _stream(follower, database, who, jobs)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


def _read(database: Database, who: Identity, **filters: Any) -> list[dict[str, Any]]:
    """The current state of jobs, newest first. Only jobs that the caller owns."""
    with database() as conn:
        return queue.list_jobs(conn, _MAX_FOLLOWED, **filters, **who.mine)


async def _stream(
    follower: Follower, database: Database, who: Identity, jobs: list[dict[str, Any]]
) -> AsyncIterator[str]:
    """Send the current state, then the changes. Ends when all followed jobs have ended."""
    unfinished = set(follower.jobs)
    yield "retry: 2000\n\n"
    while True:
        for job in jobs:
            yield _event("job", camel(job))
            if job["status"] in ENDED:
                unfinished.discard(job["id"])
        if follower.jobs and not unfinished:
            yield _event("end", {})
            return
        jobs = []
        try:
            changed = await follower.next_changes(_KEEP_ALIVE_SECONDS)
        except TimeoutError:
            yield ": keep-alive\n\n"
            continue
        if None in changed and not follower.jobs:
            yield _event("reload", {})
        ids = unfinished if None in changed and follower.jobs else changed - {None}
        jobs = await run_in_threadpool(_read, database, who, ids=list(ids)) if ids else []


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
