"""Who or what launched a run, from its tags, and what it failed of.

Not here: how the tags come there (`instance/door`, `cli/run_process`).
"""

from collections.abc import Mapping
from typing import Any

from dagster_backfills.identity import USER_TAG


def started_by(tags: Mapping[str, str]) -> str:
    """The person; where there is none, the schedule, sensor or backfill."""
    return tags.get(USER_TAG) or cause_of(tags)


def cause_of(tags: Mapping[str, str]) -> str:
    """The nearest cause; for what a person launched alone, that person if he is known."""
    for tag, what in (
        ("dagster/backfill", "backfill"),
        ("dagster/sensor_name", "sensor"),
        ("dagster/schedule_name", "schedule"),
    ):
        if tag in tags:
            return f"{what} {tags[tag]}"
    return tags.get(USER_TAG) or tags.get("backfills/launched_by", "person")


def reason_of(error: Any, user_failure: Any = None) -> str:
    """What is at the bottom of a failure: Dagster wraps what goes wrong while an output is stored."""
    if user_failure is not None and user_failure.description:
        return str(user_failure.description)
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error else ""
