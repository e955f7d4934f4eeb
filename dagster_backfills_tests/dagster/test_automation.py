"""Sensors that keep partitions and their contents up to date: what a tick asks for, and when it holds back."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from dagster_backfills.dagster.automation import partition_sync_sensor, refresh_sensor
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.engine.back_off import back_off, is_resting

PARTS = dg.DynamicPartitionsDefinition(name="parts")
sync = partition_sync_sensor("parts_sync", PARTS, "select id from t.parts order by created, id")


@dg.op
def work() -> None: ...


@dg.job
def refresh() -> None:
    work()


refresher = refresh_sensor(
    "refresh_when_due",
    refresh,
    lambda conn: conn.execute("select count(*) from t.due").fetchone()[0],
    what="due parts",
)


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def tick(database_url, instance):
    """One evaluation of a sensor, against the test's own database and instance."""

    def evaluate(sensor):
        given = {"postgres": PostgresResource(url=database_url)}
        with dg.build_sensor_context(instance=instance, resources=given) as context:
            return sensor.evaluate_tick(context)

    return evaluate


class TestPartitionSync:
    def test_new_rows_become_partitions_and_gone_ones_are_removed(self, tick, conn, instance):
        conn.execute("create schema t; create table t.parts (id text, created int)")
        conn.execute("insert into t.parts values ('young', 2), ('old, \"odd\"', 1), ('kept', 3)")
        instance.add_dynamic_partitions("parts", ["kept", "gone"])
        result = tick(sync)
        added, removed = result.dynamic_partitions_requests
        assert added.partition_keys == ['old, "odd"', "young"] and removed.partition_keys == ["gone"]

    def test_where_nothing_changed_the_tick_is_skipped(self, tick, conn, instance):
        conn.execute("create schema t; create table t.parts (id text, created int)")
        conn.execute("insert into t.parts values ('a', 1)")
        instance.add_dynamic_partitions("parts", ["a"])
        assert "All 1 partitions match their rows" in tick(sync).skip_message

    def test_thousands_come_in_one_tick(self, tick, conn):
        conn.execute("create schema t; create table t.parts (id text, created int)")
        conn.execute("insert into t.parts select n::text, n from generate_series(1, 10000) n")
        [request] = tick(sync).dynamic_partitions_requests
        assert len(request.partition_keys) == 10000 and request.partition_keys[:2] == ["1", "2"]


class TestRefresh:
    @pytest.fixture
    def due(self, conn):
        conn.execute("create schema t; create table t.due (id int)")
        conn.execute("insert into t.due values (1), (2)")

    def test_work_starts_a_run_that_says_why(self, tick, due):
        [request] = tick(refresher).run_requests
        assert request.tags["backfills/reason"] == "2 due parts"

    def test_no_work_starts_none(self, tick, due, conn):
        conn.execute("truncate t.due")
        assert tick(refresher).skip_message == "There are no due parts."

    @pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
    def test_one_run_at_a_time(self, tick, due, instance, status):
        run = instance.create_run_for_job(refresh, status=status)
        assert run.run_id in tick(refresher).skip_message

    def test_a_run_of_another_job_is_no_obstacle(self, tick, due, instance):
        @dg.job
        def other():
            work()

        instance.create_run_for_job(other, status=dg.DagsterRunStatus.STARTED)
        assert tick(refresher).run_requests

    def test_a_run_that_failed_a_moment_ago_is_waited_after(self, tick, due, instance):
        instance.create_run_for_job(refresh, status=dg.DagsterRunStatus.FAILURE)
        assert "the last 1 runs of refresh failed" in tick(refresher).skip_message

    def test_a_success_after_it_ends_the_wait(self, tick, due, instance):
        instance.create_run_for_job(refresh, status=dg.DagsterRunStatus.FAILURE)
        instance.create_run_for_job(refresh, status=dg.DagsterRunStatus.SUCCESS)
        assert tick(refresher).run_requests


class TestBackOff:
    def test_a_failure_that_a_wrong_clock_dated_tomorrow_is_not_waited_after(self):
        now = datetime(2026, 7, 1, tzinfo=UTC)
        assert is_resting(1, now - timedelta(seconds=29), now)
        assert not is_resting(1, now - timedelta(seconds=30), now)
        assert not is_resting(1, now + timedelta(days=1), now)
        assert not is_resting(0, None, now)

    def test_it_doubles_up_to_an_hour(self):
        waits = [back_off(n) for n in (0, 1, 2, 3, 50)]
        assert waits == [
            timedelta(), timedelta(seconds=30), timedelta(seconds=60), timedelta(seconds=120), timedelta(hours=1),
        ]  # fmt: skip
