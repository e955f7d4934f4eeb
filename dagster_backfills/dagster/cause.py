"""Who or what launched a run, from its tags, and what it failed of.

Not here: how the tags come there (`instance/door`, `cli/run_process`).
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

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


def failed_steps(instance: dg.DagsterInstance, run_id: str, most: int | None = None) -> list[tuple[str, str]]:
    """The steps of a run that failed, and what each failed of, as far as it is said."""
    failure = dg.DagsterEventType.STEP_FAILURE
    records = instance.get_records_for_run(run_id, of_type=failure, limit=most).records
    events = [record.event_log_entry.get_dagster_event() for record in records]
    data = [(event.step_key or "", event.step_failure_data) for event in events]
    reasons = [(step, reason_of(each.error, each.user_failure_data)) for step, each in data]
    return [(step, reason) for step, reason in reasons if reason]
