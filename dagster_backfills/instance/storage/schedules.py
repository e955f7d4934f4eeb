"""Dagster's storage of schedules and sensors, made tolerant of a clock that was set back.

The daemon evaluates a sensor again when its interval has passed since its last tick. If the clock was a day ahead at
that tick, the sensor would pause for a day, even if the daemon is restarted, and only SQL could fix it.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dagster_postgres import PostgresScheduleStorage

if TYPE_CHECKING:
    from dagster_backfills.dagster.private import InstigatorState

_MACHINES_DIFFER_SECONDS = 60
_LAST_TICKS = ("last_tick_timestamp", "last_tick_start_timestamp")


class ScheduleStorage(PostgresScheduleStorage):
    """Like the stock storage, but ignores a sensor's last tick if its time is in the future."""

    def all_instigator_state(self, *args: Any, **kwargs: Any) -> "Sequence[InstigatorState]":
        return [_without_future(state) for state in super().all_instigator_state(*args, **kwargs)]

    def get_instigator_state(self, origin_id: str, selector_id: str) -> "InstigatorState | None":
        state = super().get_instigator_state(origin_id, selector_id)
        return state and _without_future(state)


def _without_future(state: "InstigatorState") -> "InstigatorState":
    # Only sensors have these fields. If another Dagster version has renamed them, ticks are left unchanged.
    data: Any = state.instigator_data
    ticks = [name for name in _LAST_TICKS if getattr(data, name, None)]
    if not any(getattr(data, name) > time.time() + _MACHINES_DIFFER_SECONDS for name in ticks):
        return state
    return state.with_data(data._replace(**dict.fromkeys(ticks)))
