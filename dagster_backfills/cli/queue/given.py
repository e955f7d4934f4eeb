"""What a person gives to `backfills queue`: a job's id or type, an input as JSON, a step that follows."""

import re
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.registry import known_hint
from dagster_backfills.errors import UserError
from dagster_backfills.names import the_one
from dagster_backfills.postgres.values import json_object


def job_id_of(conn: psycopg.Connection[Any], text: str) -> UUID:
    """The job whose id this is, or begins so."""
    digits = text.replace("-", "").casefold()
    if not re.fullmatch("[0-9a-f]{1,32}", digits):
        raise UserError(f"{text!r} is not a job's id.", "An id looks like 018f4e2a-….")
    between = {"first": UUID(digits.ljust(32, "0")), "last": UUID(digits.ljust(32, "f"))}
    found = {str(row["id"]): None for row in queue.rows(conn, "jobs_between", **between)}
    return UUID(the_one(text.casefold(), found, "job", "backfills queue list shows those there are."))


def require_type(conn: psycopg.Connection[Any], job_type: str) -> None:
    """Raises UserError for a type that the database does not know and has no job of."""
    known = [row["job_type"] for row in queue.rows(conn, "known_types")]
    if not job_type or job_type in known:
        return
    if not queue.rows(conn, "has_jobs_of_type", job_type=job_type)[0]["found"]:
        raise UserError(f"There is no job type {job_type!r}.", known_hint(job_type, known))


def object_of(text: str, option: str) -> dict[str, Any]:
    """An option's JSON object, which may lie in a file."""
    try:
        if text.startswith("@"):
            text = sys.stdin.read() if text == "@-" else Path(text[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{option} names {text[1:]}, which can't be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{option} is not JSON: {error}.") from None
    return json_object(text, option)


def step_of(text: str) -> queue.Step:
    job_type, _, given = text.partition("=")
    return queue.Step(job_type, object_of(given or "{}", f"--then {job_type}"))
