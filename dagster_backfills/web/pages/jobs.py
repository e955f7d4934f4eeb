"""*Jobs*: background jobs by state, all jobs of one state, one job."""

from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from starlette.responses import Response

from dagster_backfills.postgres.statements import load_statements
from dagster_backfills.web.pages.rendering import pretty
from dagster_backfills.web.pages.visit import Listed, Visit, act, go_to, listed, page, readable

SQL = load_statements(Path(__file__).with_name("jobs.sql"))
# In the order in which the page shows them.
STATES = ("processing", "pending", "failed", "completed", "cancelled")
FIRST_FEW, LISTED = 10, 50


def overview(visit: Visit) -> Response:
    """All states with counts and their first few jobs, or one state page by page."""
    chosen = visit.query("status") if visit.query("status") in STATES else ""
    after = readable(UUID, visit.query("after"))
    at = readable(datetime.fromisoformat, visit.query("at"))
    with visit.database() as conn:
        rows = {row["status"]: row["jobs"] for row in SQL.counts.dicts(conn)}
        counts = {state: rows.get(state, 0) for state in STATES}
        if chosen:
            jobs = {chosen: _jobs(conn, chosen, LISTED, after, at)}
        else:
            jobs = {state: _jobs(conn, state, FIRST_FEW) for state in STATES}
    back = f"/jobs?status={chosen}" if chosen else "/jobs"
    return visit.show("jobs.html", jobs=jobs, counts=counts, chosen=chosen, may=visit.may("jobs"), back=back)


def _jobs(
    conn: psycopg.Connection[Any],
    status: str,
    most: int,
    after: UUID | None = None,
    at: datetime | None = None,
) -> Listed:
    if status in ("processing", "pending"):
        return listed(conn, SQL.by_name[status], most, after)
    return listed(conn, SQL.ended, most, after if at else None, at=at, status=status)


def shown(visit: Visit) -> Response:
    """One job: progress, input, output and errors."""
    with visit.database() as conn:
        job = visit.actions.queue.find(conn, visit.path("job"), visit.who)
        steps = SQL.steps.dicts(conn, job=job["id"])
    data = {name: pretty(job[f"{name}_data"]) for name in ("input", "output")}
    return visit.show(
        "job.html", job=job, steps=steps, data=data, may=visit.may("jobs"), back=f"/jobs/{job['id']}"
    )


def cancel(visit: Visit) -> Response:
    """Cancel a pending or processing job."""
    visit.actions.queue.cancel(visit.path("job"), visit.who)
    return _back(visit)


def retry(visit: Visit) -> Response:
    """Retry a failed job."""
    visit.actions.queue.retry(visit.path("job"), visit.who)
    return _back(visit)


def _back(visit: Visit) -> Response:
    """Redirect to the page that the button was on."""
    back = visit.fields.get("back", "")
    known = ("/jobs", *(f"/jobs?status={state}" for state in STATES))
    return go_to(back if back in known else f"/jobs/{visit.path('job')}")


routes = [
    page("/jobs", overview),
    page("/jobs/{job}", shown),
    act("/jobs/{job}/cancel", "jobs", cancel),
    act("/jobs/{job}/retry", "jobs", retry),
]
