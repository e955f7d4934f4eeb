"""The queue's Python API: thin wrappers around the SQL functions of schema `jobs`, which hold all the logic.

Functions take a psycopg connection and don't commit. On an autocommit connection each call is its own transaction.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from dagster_backfills.domains.queue.errors import InvalidJobInput, UnknownJobType
from dagster_backfills.domains.queue.registry import (
    JobType,
    Registry,
    background_job_types,
    fields_of,
    known_hint,
)
from dagster_backfills.domains.queue.schemas import storable
from dagster_backfills.postgres.statements import load_statements
from dagster_backfills.postgres.values import show_every_value

STATEMENTS = load_statements(Path(__file__).with_name("queries.sql"))


@dataclass(frozen=True, slots=True)
class Job:
    """A job as claimed by one attempt. `input_data` is a string if Python can't parse the JSON."""

    id: UUID
    job_type: str
    priority: int
    attempt: int
    retry_count: int
    max_retries: int
    input_data: dict[str, Any] | str
    created_at: datetime


@dataclass(frozen=True)
class Owner:
    """The user, company and training that a job belongs to, as IDs of the source system."""

    user_id: str | None = None
    company_id: str | None = None
    training_id: str | None = None


@dataclass(frozen=True)
class Step:
    """A job to enqueue on completion. Missing input fields are taken from the previous job's output, then its input."""

    job_type: str
    input_data: dict[str, Any]
    priority: int | None = None
    max_retries: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The step as stored in `then_steps`."""
        return {name: value for name, value in vars(self).items() if value is not None}


def enqueue(
    conn: psycopg.Connection,
    job_type: str,
    input_data: dict[str, Any] | None = None,
    *,
    priority: int = 5,
    run_after: datetime | None = None,
    unique_key: str | None = None,
    max_retries: int | None = None,
    owner: Owner | None = None,
    then: Sequence[Step] = (),
    registry: Registry | None = None,
) -> UUID:
    """Enqueue one job and return its ID, or the ID of the existing job with the same `unique_key`.

    Raises UnknownJobType or InvalidJobInput before anything is written.
    """
    registry = registry or background_job_types()
    registry.get(job_type).parse(input_data or {})
    for step in then:
        registry.get(step.job_type).parse(step.input_data, partial=True)
    values = {
        "job_type": job_type, "input_data": Jsonb(input_data or {}), "priority": priority, "run_after": run_after,
        "unique_key": unique_key, "max_retries": max_retries,
        "then_steps": Jsonb([s.as_json() for s in then]) if then else None,
    }  # fmt: skip
    with _as_input_errors():
        return STATEMENTS.enqueue_one(conn, **values, **vars(owner or Owner()))


def enqueue_many(
    conn: psycopg.Connection,
    job_type: str,
    inputs: Sequence[dict[str, Any]],
    *,
    priority: int = 5,
    run_after: datetime | None = None,
    max_retries: int | None = None,
    owner: Owner | None = None,
    registry: Registry | None = None,
) -> list[UUID]:
    """Enqueue one job for each input, all or none, in one statement. Returns their IDs in the same order."""
    kind = (registry or background_job_types()).get(job_type)
    for input_data in inputs:
        kind.parse(input_data)
    values = {
        "job_type": job_type, "inputs": Jsonb(list(inputs)), "priority": priority, "run_after": run_after,
        "max_retries": max_retries,
    }  # fmt: skip
    with _as_input_errors():
        return STATEMENTS.enqueue_many(conn, **values, **vars(owner or Owner()))


def claim(conn: psycopg.Connection, worker: str, max_jobs: int) -> list[Job]:
    """Claim up to `max_jobs` due jobs: priority 1 first, then the oldest."""
    jobs = (Job(*row) for row in STATEMENTS.claim(conn, worker=worker, max_jobs=max_jobs))
    return sorted(jobs, key=lambda j: (j.priority, j.created_at, j.id))


def renew(conn: psycopg.Connection, jobs: Sequence[Job]) -> set[UUID]:
    """Renew the leases. Returns the jobs that are still held; the others were cancelled or lost."""
    return {row[0] for row in STATEMENTS.renew(conn, **_ids(jobs))}


def report_progress(
    conn: psycopg.Connection, job: Job, percentage: int | None, message: str | None
) -> str | None:
    """Store progress. Returns `processing` if accepted, `cancelled`, or None if the attempt no longer holds the job."""
    values = {"percentage": percentage, "message": message and storable(message)}
    status: str | None = STATEMENTS.report_progress(conn, job_id=job.id, attempt=job.attempt, **values)
    return status


def complete(conn: psycopg.Connection, done: Sequence[tuple[Job, Any]]) -> set[UUID]:
    """Complete attempts with their outputs, in one statement. Returns the jobs for which this was accepted."""
    outputs = [None if output is None else Jsonb(output) for _, output in done]
    return {row[0] for row in STATEMENTS.complete(conn, **_ids([job for job, _ in done]), outputs=outputs)}


def fail(
    conn: psycopg.Connection, job: Job, kind: str, message: str, trace: str, retryable: bool
) -> str | None:
    """Fail an attempt. Returns `pending` if it will be retried, `failed` if not, None if it no longer held the job."""
    values = {"kind": kind, "message": storable(message), "trace": storable(trace), "retryable": retryable}
    status: str | None = STATEMENTS.fail(conn, job_id=job.id, attempt=job.attempt, **values)
    return status


def give_back(conn: psycopg.Connection, jobs: Sequence[Job]) -> int:
    """Return jobs to the queue, due now, without using up a retry. Returns how many were still held."""
    return int(STATEMENTS.give_back(conn, **_ids(jobs))) if jobs else 0


def give_back_all(conn: psycopg.Connection, worker: str) -> int:
    """Return all jobs of this worker to the queue. Returns how many."""
    return int(STATEMENTS.give_back_all(conn, worker=worker))


def take_back_expired(conn: psycopg.Connection) -> int:
    """Reclaim jobs whose lease has expired. Returns how many."""
    return int(STATEMENTS.take_back_expired(conn))


def cancel(conn: psycopg.Connection, job_id: UUID, reason: str | None = None) -> str | None:
    """Cancel a pending or processing job. Returns its previous status, or None if there is no such job."""
    status: str | None = STATEMENTS.cancel(conn, job_id=job_id, reason=reason)
    return status


def retry(conn: psycopg.Connection, ids: Sequence[UUID] | None = None, job_type: str | None = None) -> int:
    """Retry failed jobs, by ID or all of a type, with their retry count reset. Returns how many."""
    return int(STATEMENTS.retry(conn, ids=list(ids) if ids else None, job_type=job_type))


def clean_up(
    conn: psycopg.Connection, older_than: timedelta | None = None, max_jobs: int = 10_000
) -> Iterator[int]:
    """Remove finished jobs, by default at the age in `jobs.queue_settings`; yields each statement's count."""
    while removed := int(STATEMENTS.clean_up(conn, older_than=older_than, max_jobs=max_jobs)):
        yield removed


def rows(conn: psycopg.Connection, statement: str, **values: Any) -> list[dict[str, Any]]:
    """Run one of the SELECT statements of queries.sql."""
    with conn.cursor(row_factory=dict_row) as cursor:
        show_every_value(cursor)
        return cursor.execute(STATEMENTS[statement], values).fetchall()


def list_jobs(conn: psycopg.Connection, max_rows: int, **filters: Any) -> list[dict[str, Any]]:
    """The newest jobs. Filters: `ids`, `status`, `job_type`, `user_id`, `company_id`, and created before `before`."""
    unset = dict.fromkeys(("ids", "status", "job_type", "user_id", "company_id", "before"))
    return rows(conn, "list_jobs", max_rows=max_rows, **unset | filters)


def changed_jobs(conn: psycopg.Connection, seconds: float) -> set[UUID | None]:
    """The jobs that `jobs_changed` names within `seconds`; None for many at once. Any role may send a notification."""
    return {_named(notice.payload) for notice in conn.notifies(timeout=seconds)}


def _named(payload: str) -> UUID | None:
    try:
        return UUID(json.loads(payload)["id"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def check_types(conn: psycopg.Connection, names: Sequence[str]) -> None:
    """Raises UnknownJobType for a type that is not registered in the database and has no jobs."""
    known = [row["job_type"] for row in rows(conn, "known_types")]
    for name in names:
        if name not in known and not list_jobs(conn, 1, job_type=name):
            raise UnknownJobType(f"There is no job type {name!r}.", known_hint(name, known))


def register(conn: psycopg.Connection, kind: JobType) -> None:
    """Register a type in the database, so that its jobs can be enqueued, also from SQL. Needs the owner's role."""
    fields = fields_of(kind)
    fields["input_fields"] = Jsonb(fields["input_fields"]) if fields["input_fields"] is not None else None
    STATEMENTS.register_type(conn, **fields)


def _ids(jobs: Sequence[Job]) -> dict[str, Any]:
    return {"ids": [j.id for j in jobs], "attempts": [j.attempt for j in jobs]}


@contextmanager
def _as_input_errors() -> Iterator[None]:
    """Raise InvalidJobInput if the database rejects the input, or if it is not JSON."""
    try:
        yield
    except (psycopg.DataError, psycopg.errors.CheckViolation) as error:
        message = error.diag.message_primary or str(error)
        # The registry has the type, so only the database does not know it.
        hint = "Register it in the database: backfills queue types --register."
        raise InvalidJobInput(f"{message}.", hint if message.startswith("Unknown") else "") from None
    except (RecursionError, TypeError, ValueError) as error:
        raise InvalidJobInput(f"The input is not JSON: {error}.") from None
