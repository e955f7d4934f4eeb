"""What the database notifies of a changed job. Every login may notify: a notice says only where to look."""

import json
from uuid import UUID


def job_of(payload: str) -> UUID | None:
    """The job that a notice tells of; None where it tells of many, or is anybody's."""
    try:
        return UUID(json.loads(payload)["id"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
