"""Sensor states stored by Dagster, one of them with a time from a clock that was ahead."""

import time
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
)

from dagster_backfills.instance.dagster_home import with_search_path
from dagster_backfills.instance.storage import BatchedPostgresStorage

DAY = 86_400


@pytest.fixture
def instance(database_with_dagster, monkeypatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", with_search_path(database_with_dagster, "dagster"))
    storage = {"module": "dagster_backfills.instance.storage", "class": BatchedPostgresStorage.__name__}
    with dg.instance_for_test(overrides={"storage": {"custom": {**storage, "config": {}}}}) as made:
        yield made


def stored(instance: dg.DagsterInstance, **data: float | str) -> SensorInstigatorData:
    """The sensor state that Dagster reads after it has written this one."""
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("location"), "repository")
    origin = RemoteInstigatorOrigin(repository, "sensor")
    state = InstigatorState(
        origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, SensorInstigatorData(cursor="kept", **data)
    )
    instance.add_instigator_state(state)
    one = instance.get_instigator_state(origin.get_id(), state.selector_id)
    (all_of_them,) = instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    assert one == all_of_them
    assert isinstance(one.instigator_data, SensorInstigatorData)
    return one.instigator_data


@pytest.mark.parametrize("field", ["last_tick_timestamp", "last_tick_start_timestamp"])
def test_a_tick_in_the_future_is_ignored_and_the_cursor_is_kept(instance, field):
    data = stored(instance, **{field: time.time() + DAY})
    assert (data.last_tick_timestamp, data.last_tick_start_timestamp, data.cursor) == (None, None, "kept")


def test_a_tick_in_the_past_is_unchanged(instance):
    then = time.time() - 5
    data = stored(instance, last_tick_timestamp=then, last_tick_start_timestamp=then)
    assert (data.last_tick_timestamp, data.last_tick_start_timestamp) == (then, then)
