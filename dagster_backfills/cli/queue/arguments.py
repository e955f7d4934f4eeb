"""Parse arguments of `backfills queue`: job IDs, JSON inputs and following steps."""

import re
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from dagster_backfills.domains.queue import queue
from dagster_backfills.errors import UserError
from dagster_backfills.names import resolve_id
from dagster_backfills.postgres.values import json_object


def parse_job_id(conn: psycopg.Connection[Any], text: str) -> UUID:
    """The job with this ID or unique prefix of an ID. Raises UserError if there is none."""
    digits = text.replace("-", "").casefold()
    if not re.fullmatch("[0-9a-f]{1,32}", digits):
        raise UserError(f"{text!r} is not a job ID.", "A job ID looks like 018f4e2a-….")
    between = {"first": UUID(digits.ljust(32, "0")), "last": UUID(digits.ljust(32, "f"))}
    matches = {str(row["id"]): None for row in queue.rows(conn, "jobs_between", **between)}
    return UUID(resolve_id(text.casefold(), matches, "job", "To list the jobs: backfills queue list"))


def parse_object(text: str, option: str) -> dict[str, Any]:
    """Parse an option's JSON object; @FILE reads it from a file, @- from standard input."""
    try:
        if text.startswith("@"):
            text = sys.stdin.read() if text == "@-" else Path(text[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{option} names {text[1:]}, which can't be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{option} is not JSON: {error}.") from None
    return json_object(text, option)


def parse_step(text: str) -> queue.Step:
    job_type, _, input_data = text.partition("=")
    return queue.Step(job_type, parse_object(input_data or "{}", f"--then {job_type}"))
