"""The types of jobs as the command line shows and checks them. Not here: the commands."""

from typing import Any

import psycopg

from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.registry import JobType, fields_of, known_hint
from dagster_backfills.errors import UserError


def type_line(name: str, kind: JobType | None, known: dict[str, Any] | None) -> dict[str, Any]:
    """A type as this process and the database know it; a question mark for a field that may be left out."""
    fields = fields_of(kind) if kind else known or {}
    required = set(fields["required_fields"])
    given = fields["input_fields"]
    said = [f"{f}{'' if f in required else '?'}: {t or 'any'}" for f, t in (given or {}).items()]
    outdated = (
        known and kind and any(fields[column] != known[column] for column in ("input_fields", "max_retries"))
    )
    return {
        "type": name,
        "fields": "any" if given is None else ", ".join(said),
        "retries": fields["max_retries"],
        "runs in": kind.isolation if kind else "",
        "handler": f"{kind.handler.__module__}.{kind.handler.__qualname__}" if kind else "none here",
        "database": "does not know it" if not known else "knows other fields" if outdated else "knows it",
    }


def require_type(conn: psycopg.Connection, job_type: str) -> None:
    """Raises UserError for a type that the database does not know and has no job of."""
    known = [row["job_type"] for row in queue.rows(conn, "known_types")]
    if not job_type or job_type in known:
        return
    if not queue.rows(conn, "has_jobs_of_type", job_type=job_type)[0]["found"]:
        raise UserError(f"There is no job type {job_type!r}.", known_hint(job_type, known))
