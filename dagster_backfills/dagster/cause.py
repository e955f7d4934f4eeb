"""Who or what launched a run, read from its tags, and why it failed.

Not here: setting the tags (`instance/door`, `cli/run_process`).
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from dagster_backfills.identity import USER_TAG


def started_by(tags: Mapping[str, str]) -> str:
    """The user who launched the run; else the schedule, sensor or backfill that did."""
    return tags.get(USER_TAG) or cause_of(tags)


def cause_of(tags: Mapping[str, str]) -> str:
    """The backfill, sensor or schedule that launched the run; else the user, or "person" if the user is unknown."""
    for tag, what in (
        ("dagster/backfill", "backfill"),
        ("dagster/sensor_name", "sensor"),
        ("dagster/schedule_name", "schedule"),
    ):
        if tag in tags:
            return f"{what} {tags[tag]}"
    return tags.get(USER_TAG) or tags.get("backfills/launched_by", "person")


def reason_of(error: Any, user_failure: Any = None) -> str:
    """The root cause of a failure. Dagster wraps errors that are raised while an output is stored."""
    if user_failure is not None and user_failure.description:
        return str(user_failure.description)
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error else ""


def failed_steps(instance: dg.DagsterInstance, run_id: str, most: int | None = None) -> list[tuple[str, str]]:
    """The failed steps of a run with their reasons. Steps without a reason are left out."""
    failure = dg.DagsterEventType.STEP_FAILURE
    records = instance.get_records_for_run(run_id, of_type=failure, limit=most).records
    events = [record.event_log_entry.get_dagster_event() for record in records]
    data = [(event.step_key or "", event.step_failure_data) for event in events]
    reasons = [(step, reason_of(each.error, each.user_failure_data)) for step, each in data]
    return [(step, reason) for step, reason in reasons if reason]
