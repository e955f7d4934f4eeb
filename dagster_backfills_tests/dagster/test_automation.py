"""Sensors that keep partitions up to date: which runs a tick requests, and when it backs off."""

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
    """Evaluates a sensor once, on the test's database and instance."""

    def evaluate(sensor):
        given = {"postgres": PostgresResource(url=database_url)}
        with dg.build_sensor_context(instance=instance, resources=given) as context:
            return sensor.evaluate_tick(context)

    return evaluate


class TestPartitionSync:
    def test_partitions_are_added_and_removed_with_their_rows(self, tick, conn, instance):
        conn.execute("create schema t; create table t.parts (id text, created int)")
        conn.execute("insert into t.parts values ('young', 2), ('old, \"odd\"', 1), ('kept', 3)")
        instance.add_dynamic_partitions("parts", ["kept", "gone"])
        result = tick(sync)
        added, removed = result.dynamic_partitions_requests
        assert added.partition_keys == ['old, "odd"', "young"] and removed.partition_keys == ["gone"]

    def test_a_tick_without_changes_is_skipped(self, tick, conn, instance):
        conn.execute("create schema t; create table t.parts (id text, created int)")
        conn.execute("insert into t.parts values ('a', 1)")
        instance.add_dynamic_partitions("parts", ["a"])
        assert "All 1 partitions match their rows" in tick(sync).skip_message

    def test_one_tick_adds_thousands_of_partitions(self, tick, conn):
        conn.execute("create schema t; create table t.parts (id text, created int)")
        conn.execute("insert into t.parts select n::text, n from generate_series(1, 10000) n")
        [request] = tick(sync).dynamic_partitions_requests
        assert len(request.partition_keys) == 10000 and request.partition_keys[:2] == ["1", "2"]


class TestRefresh:
    @pytest.fixture
    def due(self, conn):
        conn.execute("create schema t; create table t.due (id int)")
        conn.execute("insert into t.due values (1), (2)")

    def test_due_work_starts_a_run_tagged_with_the_reason(self, tick, due):
        [request] = tick(refresher).run_requests
        assert request.tags["backfills/reason"] == "2 due parts"

    def test_no_run_starts_without_due_work(self, tick, due, conn):
        conn.execute("truncate t.due")
        assert tick(refresher).skip_message == "There are no due parts."

    @pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
    def test_only_one_run_is_active_at_a_time(self, tick, due, instance, status):
        run = instance.create_run_for_job(refresh, status=status)
        assert run.run_id in tick(refresher).skip_message

    def test_a_run_of_another_job_does_not_block(self, tick, due, instance):
        @dg.job
        def other():
            work()

        instance.create_run_for_job(other, status=dg.DagsterRunStatus.STARTED)
        assert tick(refresher).run_requests

    def test_the_sensor_backs_off_after_a_failed_run(self, tick, due, instance):
        instance.create_run_for_job(refresh, status=dg.DagsterRunStatus.FAILURE)
        assert "the last 1 runs of refresh failed" in tick(refresher).skip_message

    def test_a_success_ends_the_back_off(self, tick, due, instance):
        instance.create_run_for_job(refresh, status=dg.DagsterRunStatus.FAILURE)
        instance.create_run_for_job(refresh, status=dg.DagsterRunStatus.SUCCESS)
        assert tick(refresher).run_requests


class TestBackOff:
    def test_a_failure_dated_in_the_future_does_not_cause_back_off(self):
        now = datetime(2026, 7, 1, tzinfo=UTC)
        assert is_resting(1, now - timedelta(seconds=29), now)
        assert not is_resting(1, now - timedelta(seconds=30), now)
        assert not is_resting(1, now + timedelta(days=1), now)
        assert not is_resting(0, None, now)

    def test_the_back_off_doubles_up_to_an_hour(self):
        waits = [back_off(n) for n in (0, 1, 2, 3, 50)]
        assert waits == [
            timedelta(), timedelta(seconds=30), timedelta(seconds=60), timedelta(seconds=120), timedelta(hours=1),
        ]  # fmt: skip
