"""Dagster's storage of schedules and sensors, made to bear a clock that was set back.

The daemon lets a sensor rest for its interval after its last tick. Where a clock that was a day ahead has dated that
tick, the sensor would rest for a day, however often the daemon is started again, and only SQL could help.
Not here: when ticks are due.
"""

import time
from collections.abc import Sequence
from typing import Any

from dagster._core.scheduler.instigation import InstigatorState, SensorInstigatorData
from dagster_postgres import PostgresScheduleStorage

_MACHINES_DIFFER_SECONDS = 60


class ScheduleStorage(PostgresScheduleStorage):
    """As the stock one, but a sensor's last tick is never one that is still to come."""

    def all_instigator_state(self, *args: Any, **kwargs: Any) -> Sequence[InstigatorState]:
        return [_without_future(state) for state in super().all_instigator_state(*args, **kwargs)]

    def get_instigator_state(self, origin_id: str, selector_id: str) -> InstigatorState | None:
        state = super().get_instigator_state(origin_id, selector_id)
        return state and _without_future(state)


def _without_future(state: InstigatorState) -> InstigatorState:
    data = state.instigator_data
    if not isinstance(data, SensorInstigatorData):
        return state
    last = max(data.last_tick_timestamp or 0, data.last_tick_start_timestamp or 0)
    if last <= time.time() + _MACHINES_DIFFER_SECONDS:
        return state
    return state.with_data(data._replace(last_tick_timestamp=None, last_tick_start_timestamp=None))
