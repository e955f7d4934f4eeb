"""The queue through Dagster: runs, sensor, schedule, observations, checks."""

import os
import signal
import threading
import time
from pathlib import Path

import dagster as dg
import pytest

from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.queue import assets, checks, sensors
from dagster_backfills.defs.queue import jobs as ops
from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.settings import DrainPolicy
from dagster_backfills.errors import UserError

TRANSCRIPT = (
    "Open the valve slowly. Check the pressure gauge. The pressure must stay below ten bar. "
    "Close the valve when the tank is full. Clean the work area. Report any leak to the supervisor."
)


@pytest.fixture
def defs(jobs_db) -> dg.Definitions:
    return dg.Definitions(
        assets=[assets.background_jobs],
        asset_checks=[checks.jobs_checks],
        jobs=[ops.drain_background_jobs, ops.clean_up_background_jobs],
        schedules=[ops.clean_up_daily],
        sensors=[sensors.background_jobs_waiting],
        resources={"postgres": PostgresResource(url=jobs_db)},
    )


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def _drain(defs, instance, **config):
    job = defs.get_job_def("drain_background_jobs")
    settings = {"idle_seconds": 1, "max_seconds": 60, **config}
    return job.execute_in_process(run_config=settings, instance=instance)


def _observations(instance):
    found = instance.fetch_observations(assets.KEY, limit=50).records
    return [r.asset_observation for r in found]


@pytest.mark.programs
def test_a_run_processes_the_queue_and_records_media_results_as_observations(defs, instance, db):
    job_id = queue.enqueue(
        db, "sop_generation", {"title": "Boiler", "transcript": TRANSCRIPT, "duration": 30}
    )
    result = _drain(defs, instance)
    assert result.success
    assert queue.rows(db, "one_job", job_id=job_id)[0]["status"] == "completed"
    [seen] = _observations(instance)
    assert (
        seen.metadata["job_id"].value == str(job_id) and seen.metadata["job_type"].value == "sop_generation"
    )
    assert seen.metadata["key_points"].value >= 5 and "1. " in seen.metadata["sop_markdown"].value
    [output] = [e for e in result.all_events if e.event_type_value == "STEP_OUTPUT"]
    assert output.event_specific_data.metadata["completed"].value == 1


def test_terminating_the_run_gives_its_jobs_back(defs, instance, db, monkeypatch):
    from dagster_backfills_tests.domains.queue.harmless import harmless_types

    monkeypatch.setattr(ops, "background_job_types", harmless_types)
    ids = queue.enqueue_many(db, "wait", [{}] * 3, registry=harmless_types())

    def interrupt():
        for _ in range(200):
            if db.execute(
                "select count(*) from jobs.background_jobs where status = 'processing'"
            ).fetchone() == (3,):
                break
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(dg.DagsterExecutionInterruptedError):
        _drain(defs, instance)
    thread.join()
    rows = [queue.rows(db, "one_job", job_id=i)[0] for i in ids]
    assert [(r["status"], r["retry_count"]) for r in rows] == [("pending", 0)] * 3
    assert db.execute("select count(*) from jobs.job_queue where run_after is null").fetchone() == (3,)


@pytest.mark.parametrize(
    ("due", "oldest", "active", "launched"),
    [(0, 0, 0, 0), (1, 0, 0, 1), (500, 5, 1, 0), (500, 60, 1, 1), (500, 60, 2, 0), (0, 0, 1, 0)],
)
def test_a_run_is_launched_while_jobs_are_due_and_another_if_they_wait_long(due, oldest, active, launched):
    policy = DrainPolicy(max_runs=2, further_run_after_seconds=20)
    assert policy.should_launch(due, oldest, active) == launched


def test_the_sensor_asks_for_a_run_while_work_waits(jobs_db, db, registry, instance, monkeypatch):
    monkeypatch.setenv("JOBS_CONCURRENCY", "7")

    def tick():
        with dg.build_sensor_context(
            instance=instance, resources={"postgres": PostgresResource(url=jobs_db)}
        ) as context:
            return sensors.background_jobs_waiting(context)

    assert isinstance(tick(), dg.SkipReason)
    job_id = queue.enqueue(db, "noop", registry=registry)
    request = tick()
    assert request.run_config == {"concurrency": 7}
    queue.claim(db, "dead", 1)
    assert isinstance(tick(), dg.SkipReason)
    db.execute(
        "update jobs.background_jobs set heartbeat_at = now() - interval '1 hour' where id = %s", [job_id]
    )
    assert isinstance(tick(), dg.RunRequest), "a dead worker's job is work again"


def test_an_invalid_number_in_a_setting_is_a_clear_error(monkeypatch):
    monkeypatch.setenv("JOBS_MAX_RUNS", "many")
    with pytest.raises(UserError, match="JOBS_MAX_RUNS is 'many'"):
        DrainPolicy.from_environment()


def test_observations_of_the_queue_have_its_metrics(defs, instance, db, registry):
    queue.enqueue_many(db, "noop", [{}] * 3, registry=registry)
    queue.complete(db, [(queue.claim(db, "w", 1)[0], None)])
    observing = dg.define_asset_job("observing", dg.AssetSelection.assets(assets.KEY))
    job = dg.Definitions.merge(defs, dg.Definitions(jobs=[observing])).resolve_job_def("observing")
    assert job.execute_in_process(instance=instance).success
    [seen] = _observations(instance)
    figures = {name: value.value for name, value in seen.metadata.items()}
    assert (figures["depth"], figures["noop/depth"], figures["completed_last_hour"]) == (2, 2, 1)
    assert (
        figures["noop/oldest_waiting_seconds"] >= 0
        and figures["oldest_waiting_seconds"] >= 0
        and "noop/mean_seconds" in figures
    )


def test_the_checks_fail_for_stuck_and_repeatedly_failing_jobs(defs, instance, db, registry):
    def evaluate():
        job = defs.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance)
        return {
            e.check_name: (e.passed, e.metadata, e.description) for e in result.get_asset_check_evaluations()
        }

    fine = evaluate()
    assert {name: passed for name, (passed, *_) in fine.items()} == {
        "no_stuck_jobs": True,
        "no_type_fails_repeatedly": True,
    }
    ids = queue.enqueue_many(db, "noop", [{}] * 4, registry=registry)
    for job in queue.claim(db, "w", 3):
        queue.fail(db, job, "x", "the same again", "", False)
    db.execute(
        "update jobs.background_jobs set created_at = now() - interval '11 minutes' where id = %s", [ids[3]]
    )
    bad = evaluate()
    assert {name: passed for name, (passed, *_) in bad.items()} == {
        "no_stuck_jobs": False,
        "no_type_fails_repeatedly": False,
    }
    assert bad["no_stuck_jobs"][1]["breaches"].value == 1
    assert f"{ids[3]} (waits)" in bad["no_stuck_jobs"][2]
    assert "noop (the same again)" in bad["no_type_fails_repeatedly"][2]


def test_clean_up_removes_what_ended_long_ago(defs, instance, db, registry):
    queue.enqueue_many(db, "noop", [{}] * 2, registry=registry)
    queue.complete(db, [(j, None) for j in queue.claim(db, "w", 2)])
    db.execute("update jobs.background_jobs set completed_at = now() - interval '31 days'")
    queue.enqueue(db, "noop", registry=registry)
    result = defs.get_job_def("clean_up_background_jobs").execute_in_process(instance=instance)
    assert result.success
    assert db.execute("select status from jobs.background_jobs").fetchall() == [("pending",)]


def test_everything_of_the_queue_is_in_the_code_location():
    import dagster_backfills

    found = dg.load_from_defs_folder(path_within_project=Path(dagster_backfills.__file__).parent)
    assert {"drain_background_jobs", "clean_up_background_jobs"} <= {j.name for j in found.jobs}
    assert "background_jobs_waiting" in {s.name for s in found.sensors}
    assert "clean_up_background_jobs_daily" in {s.name for s in found.schedules}
    assert assets.KEY in found.resolve_asset_graph().get_all_asset_keys()
    keys = {k.name for k in found.resolve_asset_graph().asset_check_keys if k.asset_key == assets.KEY}
    assert keys == {"no_stuck_jobs", "no_type_fails_repeatedly"}


def test_the_queue_is_observed_and_checked_every_five_minutes(defs, instance):
    from datetime import UTC, datetime

    first = dg.evaluate_automation_conditions(
        defs, instance, evaluation_time=datetime(2026, 1, 5, 12, 1, tzinfo=UTC)
    )
    second = dg.evaluate_automation_conditions(
        defs, instance, evaluation_time=datetime(2026, 1, 5, 12, 6, tzinfo=UTC), cursor=first.cursor
    )
    third = dg.evaluate_automation_conditions(
        defs, instance, evaluation_time=datetime(2026, 1, 5, 12, 7, tzinfo=UTC), cursor=second.cursor
    )
    assert [r.total_requested for r in (first, second, third)] == [0, 3, 0]
