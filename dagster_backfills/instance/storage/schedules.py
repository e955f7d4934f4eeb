"""Dagster's storage of schedules and sensors, made to bear a clock that was set back.

The daemon lets a sensor rest for its interval after its last tick. Where a clock that was a day ahead has dated that
tick, the sensor would rest for a day, however often the daemon is started again, and only SQL could help.
Not here: when ticks are due.
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
    """As the stock one, but a sensor's last tick is never one that is still to come."""

    def all_instigator_state(self, *args: Any, **kwargs: Any) -> "Sequence[InstigatorState]":
        return [_without_future(state) for state in super().all_instigator_state(*args, **kwargs)]

    def get_instigator_state(self, origin_id: str, selector_id: str) -> "InstigatorState | None":
        state = super().get_instigator_state(origin_id, selector_id)
        return state and _without_future(state)


def _without_future(state: "InstigatorState") -> "InstigatorState":
    # A sensor's data alone has these; of a Dagster that has renamed them, ticks stay as they are.
    data: Any = state.instigator_data
    ticks = [name for name in _LAST_TICKS if getattr(data, name, None)]
    if not any(getattr(data, name) > time.time() + _MACHINES_DIFFER_SECONDS for name in ticks):
        return state
    return state.with_data(data._replace(**dict.fromkeys(ticks)))
