"""Notifications about changed jobs. Any role may send one, so a notification only says which job to read."""

import json
from uuid import UUID


def job_of(payload: str) -> UUID | None:
    """The job that a notification is about. None if it covers many jobs, or is not in our format."""
    try:
        return UUID(json.loads(payload)["id"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
