"""The queue in Python: one function for each of the database's own, and nothing decided here.

Every function takes a psycopg connection and leaves the transaction to its caller; on an autocommit connection each
call is its own.
"""

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

from dagster_backfills.domains.queue.errors import InvalidJobInput
from dagster_backfills.domains.queue.registry import JobType, Registry, background_job_types, fields_of
from dagster_backfills.domains.queue.schemas import storable
from dagster_backfills.postgres.statements import load_statements
from dagster_backfills.postgres.values import show_every_value

STATEMENTS = load_statements(Path(__file__).with_name("queries.sql"))


@dataclass(frozen=True, slots=True)
class Job:
    """One claimed attempt. `input_data` is a text where it is JSON that Python can't read."""

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
    """Whom a job belongs to, by the source system's ids."""

    user_id: str | None = None
    company_id: str | None = None
    training_id: str | None = None


@dataclass(frozen=True)
class Step:
    """What follows on completion. A field that `input_data` lacks comes from the output, or the input, before it."""

    job_type: str
    input_data: dict[str, Any]
    priority: int | None = None
    max_retries: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The step as `then_steps` has it."""
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
    """Put one job in, and return its id: that of the job there already where `unique_key` is taken.

    Raises UnknownJobType, and InvalidJobInput naming the field, before anything is written.
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
    with _clear_errors():
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
    """Put in one job for each input, all or none, in one statement. Returns their ids in the same order."""
    kind = (registry or background_job_types()).get(job_type)
    for one in inputs:
        kind.parse(one)
    values = {
        "job_type": job_type, "inputs": Jsonb(list(inputs)), "priority": priority, "run_after": run_after,
        "max_retries": max_retries,
    }  # fmt: skip
    with _clear_errors():
        return STATEMENTS.enqueue_many(conn, **values, **vars(owner or Owner()))


def claim(conn: psycopg.Connection, worker: str, max_jobs: int) -> list[Job]:
    """Take up to `max_jobs` due jobs: priority 1 first, then the oldest."""
    found = (Job(*row) for row in STATEMENTS.claim(conn, worker=worker, max_jobs=max_jobs))
    return sorted(found, key=lambda j: (j.priority, j.created_at, j.id))


def renew(conn: psycopg.Connection, held: Sequence[Job]) -> set[UUID]:
    """Renew the leases; returns the jobs that are still held. The others were cancelled, or are lost."""
    return {row[0] for row in STATEMENTS.renew(conn, **_ids(held))}


def still_held(conn: psycopg.Connection, held: Sequence[Job]) -> set[UUID]:
    """Which of these attempts hold their jobs, read only."""
    return {row[0] for row in STATEMENTS.still_held(conn, **_ids(held))}


def report_progress(
    conn: psycopg.Connection, job: Job, percentage: int | None, message: str | None
) -> str | None:
    """`processing` where it was accepted, `cancelled`, or None where the attempt does not hold the job any more."""
    said = {"percentage": percentage, "message": message and storable(message)}
    status: str | None = STATEMENTS.report_progress(conn, job_id=job.id, attempt=job.attempt, **said)
    return status


def complete(conn: psycopg.Connection, done: Sequence[tuple[Job, Any]]) -> set[UUID]:
    """Complete many attempts with their outputs in one statement; returns the jobs for which it was accepted."""
    outputs = [None if output is None else Jsonb(output) for _, output in done]
    return {row[0] for row in STATEMENTS.complete(conn, **_ids([job for job, _ in done]), outputs=outputs)}


def fail(
    conn: psycopg.Connection, job: Job, kind: str, message: str, trace: str, retryable: bool
) -> str | None:
    """`pending` where a retry follows, `failed` where none does, None where the attempt lost the job."""
    said = {"kind": kind, "message": storable(message), "trace": storable(trace), "retryable": retryable}
    status: str | None = STATEMENTS.fail(conn, job_id=job.id, attempt=job.attempt, **said)
    return status


def give_back(conn: psycopg.Connection, held: Sequence[Job]) -> int:
    """Return attempts to the queue, due at once, no retry spent. Returns how many were still held."""
    return int(STATEMENTS.give_back(conn, **_ids(held))) if held else 0


def give_back_all(conn: psycopg.Connection, worker: str) -> int:
    """Return everything that this worker holds. Returns how many."""
    return int(STATEMENTS.give_back_all(conn, worker=worker))


def take_back_expired(conn: psycopg.Connection) -> int:
    """Take back jobs whose lease is over; returns how many."""
    return int(STATEMENTS.take_back_expired(conn))


def cancel(conn: psycopg.Connection, job_id: UUID, reason: str | None = None) -> str | None:
    """Cancel a job that waits or is at work. Returns its status before; None where there is no such job."""
    status: str | None = STATEMENTS.cancel(conn, job_id=job_id, reason=reason)
    return status


def retry(conn: psycopg.Connection, ids: Sequence[UUID] | None = None, job_type: str | None = None) -> int:
    """Give failed jobs all their retries anew: these, or all of a type. Returns how many there were."""
    return int(STATEMENTS.retry(conn, ids=list(ids) if ids else None, job_type=job_type))


def clean_up(
    conn: psycopg.Connection, older_than: timedelta | None = None, max_jobs: int = 10_000
) -> Iterator[int]:
    """Remove ended jobs, `max_jobs` a statement; yields how many each removed. `older_than` None: as configured."""
    while removed := int(STATEMENTS.clean_up(conn, older_than=older_than, max_jobs=max_jobs)):
        yield removed


def lease_seconds(conn: psycopg.Connection) -> float:
    """How long a lease lasts without being renewed."""
    return float(STATEMENTS.lease_seconds(conn))


def rows(conn: psycopg.Connection, statement: str, **values: Any) -> list[dict[str, Any]]:
    """What one of the reading statements of queries.sql returns."""
    with conn.cursor(row_factory=dict_row) as cursor:
        show_every_value(cursor)
        return cursor.execute(STATEMENTS[statement], values).fetchall()


def some_jobs(conn: psycopg.Connection, max_rows: int, **chosen: Any) -> list[dict[str, Any]]:
    """The newest jobs. `chosen`: by `ids`, `status`, `job_type`, `user_id` or `company_id`; made before `before`."""
    every = dict.fromkeys(("ids", "status", "job_type", "user_id", "company_id", "before"))
    return rows(conn, "some_jobs", max_rows=max_rows, **every | chosen)


def register(conn: psycopg.Connection, kind: JobType) -> None:
    """Tell the database of a type, so that jobs of it may be enqueued, also from SQL. The owner may."""
    fields = fields_of(kind)
    fields["input_fields"] = Jsonb(fields["input_fields"]) if fields["input_fields"] is not None else None
    STATEMENTS.register_type(conn, **fields)


def _ids(held: Sequence[Job]) -> dict[str, Any]:
    return {"ids": [j.id for j in held], "attempts": [j.attempt for j in held]}


@contextmanager
def _clear_errors() -> Iterator[None]:
    """What the database refuses of an input, or JSON can't hold, as errors that a person can mend."""
    try:
        yield
    except (psycopg.DataError, psycopg.errors.CheckViolation) as error:
        said = error.diag.message_primary or str(error)
        # Python knows the type: it was looked up before.
        hint = "The database has to be told: backfills queue types --register."
        raise InvalidJobInput(f"{said}.", hint if said.startswith("Unknown") else "") from None
    except (RecursionError, TypeError, ValueError) as error:
        raise InvalidJobInput(f"The input is not JSON: {error}.") from None
