"""Plan and undo as Dagster jobs. An undone partition stays undone until its source changes or a person runs it."""

import dagster as dg

from dagster_backfills.components.postgres_backfill import definitions_of
from dagster_backfills.components.refresh import build_job
from dagster_backfills.components.undoing import build_undo_job
from dagster_backfills.defs.training.declared import COMPLETIONS, TRAINING
from dagster_backfills.engine.selection import Which


def due(training):
    return set(TRAINING.selection().choose(training.conn, Which.due))


def written(training):
    return training.rows(
        "select run_id from backfill.runs where undoes is null order by started_at desc limit 1"
    )[0][0]


def undo(training, **config):
    return build_undo_job(TRAINING).execute_in_process(
        run_config=config, instance=training.instance, resources=training.resources, raise_on_error=False
    )


def metadata(result):
    events = [e for e in result.all_node_events if e.event_type_value == "STEP_OUTPUT"]
    return {name: value.value for name, value in events[-1].step_output_data.metadata.items()}


def filled(training):
    training.add_organization("a", ["a1", "a2"], day=1)
    training.add_organization("b", ["b1"], day=2)
    assert training.fill().success


def test_the_plan_predicts_what_the_job_then_does(training):
    training.add_organization("a", ["a1", "a2"])
    (job,) = [job for job in definitions_of(TRAINING).jobs if job.name == "plan_training_completions"]
    result = job.execute_in_process(instance=training.instance, resources=training.resources)
    report = metadata(result)
    assert (report["inserted"], report["updated"], report["deleted"], report["failed_units"]) == (7, 0, 0, 0)
    assert (
        "| training/employee_training_video_completions | a (Name of a) | 6 | 0 | 0 | 0 | 0 |"
        in report["by_partition"]
    )
    assert (
        f"| training/employee_training_video_completions a (Name of a) | 6 | {'█' * 30} |"
        in report["changes"]
    )
    assert f"| training/organization_training_progress a (Name of a) | 1 | {'█' * 5} |" in report["changes"]
    assert "sat-1" in report["examples"]
    assert training.records("a") == set() and training.rows("select count(*) from backfill.runs") == [(0,)]
    assert training.instance.get_materialized_partitions(dg.AssetKey(COMPLETIONS.asset.split("/"))) == set()
    assert training.fill().success
    assert len(training.records("a")) == 6


def test_automation_skips_an_undone_organization_until_it_changes(training):
    filled(training)
    dry = undo(training)  # the last run that changed anything
    assert metadata(dry)["undoes"] == written(training)
    assert metadata(dry)["deleted"] == 11 and len(training.records("a")) == 6
    done = metadata(undo(training, run=written(training), dry_run=False))
    assert (done["removed"], done["kept_changed_since"]) == (11, 0)
    assert training.records("a") | training.records("b") == set()
    assert due(training) == set()
    training.add_member("b", "b2")
    assert due(training) == {"b"}
    assert training.fill().success
    assert len(training.records("b")) == 6 and training.records("a") == set()


def test_a_schedule_skips_an_undone_organization_and_a_person_can_run_it(training):
    filled(training)
    undo(training, run=written(training), partitions=["a"], dry_run=False)
    assert training.records("a") == set() and len(training.records("b")) == 3
    build_job(TRAINING).execute_in_process(
        run_config={"which": "all"}, tags={"dagster/schedule_name": "nightly"},
        instance=training.instance, resources=training.resources,
    )  # fmt: skip
    assert training.records("a") == set()
    assert training.fill(which="needed").success
    assert len(training.records("a")) == 6
    assert training.rows("select count(*) from backfill.undone") == [(0,)]


def test_undoing_an_unknown_run_fails_with_a_message(training):
    failed = undo(training, run="nobody's", dry_run=False)
    assert not failed.success
    assert (
        "No run ID begins with"
        in failed.failure_data_for_node("undo_a_run_of_training_completions").user_failure_data.description
    )
