"""*Jobs*: the background queue by state, one state from end to end, one job. What happens shows in every tab."""

from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from starlette.responses import Response

from dagster_backfills.postgres.statements import load_statements
from dagster_backfills.postgres.values import show_every_value
from dagster_backfills.web.pages.imports import uuid_of
from dagster_backfills.web.pages.rendering import pretty
from dagster_backfills.web.pages.visit import Visit, act, go_to, page, rows

SQL = load_statements(Path(__file__).with_name("jobs.sql"))
# In the order in which a person looks for them.
STATES = ("processing", "pending", "failed", "completed", "cancelled")
FIRST_FEW, LISTED = 10, 50


def overview(visit: Visit) -> Response:
    """Every state with its count and its first few jobs; or one state, page by page."""
    status = visit.query("status")
    if status in STATES:
        return _state(visit, status)
    with visit.database() as conn:
        counts = _counts(conn)
        groups = [(state, counts[state], _jobs(conn, state, FIRST_FEW)) for state in STATES]
    return visit.show(
        "jobs.html", groups=groups, states=STATES, counts=counts, chosen="", few=FIRST_FEW,
        may=visit.may("jobs"), more=False, first=True, back="/jobs",
    )  # fmt: skip


def _state(visit: Visit, status: str) -> Response:
    after, at = uuid_of(visit.query("after")), _time_of(visit.query("at"))
    with visit.database() as conn:
        counts, found = _counts(conn), _jobs(conn, status, LISTED + 1, after, at)
    return visit.show(
        "jobs.html", groups=[(status, counts[status], found[:LISTED])], states=STATES, counts=counts, chosen=status,
        few=LISTED, may=visit.may("jobs"), more=len(found) > LISTED, first=after is None,
        back=f"/jobs?status={status}",
    )  # fmt: skip


def _counts(conn: psycopg.Connection[Any]) -> dict[str, int]:
    found = {row["status"]: row["jobs"] for row in rows(conn, SQL, "counts")}
    return {state: found.get(state, 0) for state in STATES}


def _jobs(
    conn: psycopg.Connection[Any],
    status: str,
    most: int,
    after: UUID | None = None,
    at: datetime | None = None,
) -> list[dict[str, Any]]:
    show_every_value(conn)
    if status in ("processing", "pending"):
        return rows(conn, SQL, status, after=after, most=most)
    return rows(conn, SQL, "ended", status=status, after=after if at else None, at=at, most=most)


def _time_of(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def shown(visit: Visit) -> Response:
    """One job: how far it is, what it was given, what came out, what went wrong."""
    with visit.database() as conn:
        job = visit.actions.queue.find(conn, visit.path("job"), visit.who)
        steps = rows(conn, SQL, "steps", job=job["id"])
    data = {name: pretty(job[f"{name}_data"]) for name in ("input", "output")}
    return visit.show(
        "job.html", job=job, steps=steps, data=data, may=visit.may("jobs"), back=f"/jobs/{job['id']}"
    )


def cancel(visit: Visit) -> Response:
    """Call it off, whether it waits or is at work."""
    visit.actions.queue.cancel(visit.path("job"), visit.who)
    return _back(visit)


def retry(visit: Visit) -> Response:
    """Try one that failed again."""
    visit.actions.queue.retry(visit.path("job"), visit.who)
    return _back(visit)


def _back(visit: Visit) -> Response:
    """To the page that the button was on."""
    back = visit.fields.get("back", "")
    known = ("/jobs", *(f"/jobs?status={state}" for state in STATES))
    return go_to(back if back in known else f"/jobs/{visit.path('job')}")


routes = [
    page("/jobs", overview),
    page("/jobs/{job}", shown),
    act("/jobs/{job}/cancel", "jobs", cancel),
    act("/jobs/{job}/retry", "jobs", retry),
]
