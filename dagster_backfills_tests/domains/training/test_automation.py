"""Automation: partitions, refreshing and checks."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import psycopg

from dagster_backfills.components.assets import build_assets
from dagster_backfills.components.postgres_backfill import definitions_of
from dagster_backfills.definitions import defs
from dagster_backfills.defs.training.declared import COMPLETIONS, PROGRESS, TRAINING

CHECKS = ("every_member_has_its_records", "no_open_failures", "progress_is_counted_right", "fresh")

training_organizations_sync, training_completions_refresh = list(definitions_of(TRAINING).sensors or [])


def _tick(training, sensor):
    repository = dg.Definitions(
        assets=[build_assets(TRAINING)], resources=training.resources
    ).get_repository_def()
    with dg.build_sensor_context(
        instance=training.instance, resources=training.resources, repository_def=repository
    ) as context:
        return sensor.evaluate_tick(context)


def test_partitions_follow_the_organizations(training):
    training.add_organization("org_new", day=2)
    training.add_organization("org_old", day=1)
    training.instance.add_dynamic_partitions("training_organizations", ["org_gone"])
    added, deleted = _tick(training, training_organizations_sync).dynamic_partitions_requests
    assert added.partition_keys == ["org_old", "org_new"]
    assert deleted.partition_keys == ["org_gone"]


def test_the_state_of_a_deleted_organization_is_removed_at_the_next_tick(training):
    for organization in ("org_1", "org_2"):
        training.add_organization(organization)
        training.conn.execute(
            "insert into backfill.failures (run_id, asset, partition, error_class, message)"
            " values ('r', 'training/organization_training_progress', %s, 'DataError', 'broken')",
            [organization],
        )
    training.conn.execute("delete from training.organizations where id = 'org_1'")
    _tick(training, training_completions_refresh)
    assert training.due == {"org_2"}
    assert [partition for partition, *_ in training.failures()] == ["org_2"]


def test_an_organization_that_comes_back_is_due(training):
    training.add_organization("org_1", ["mem_1"])
    training.fill()
    assert training.due == training.uncounted == set()
    training.instance.delete_dynamic_partition("training_organizations", "org_1")
    _tick(training, training_organizations_sync)
    assert training.due == training.uncounted == {"org_1"}


def test_nothing_due_launches_nothing(training):
    assert _tick(training, training_completions_refresh).skip_message
    training.add_organization("org_1", ["mem_1"])
    training.fill()
    assert _tick(training, training_completions_refresh).skip_message


def test_a_change_launches_the_refreshing_job_whose_run_settles_it(training):
    training.add_organization("org_1", ["mem_1"])
    training.fill()
    for change in (
        "insert into training.members values ('mem_2', 'org_1', 'x', 'member')",
        "insert into training.organizations values ('org_2', 'New')",
        "insert into training.training_videos values ('sat-9', 'New', 9)",
        "update training.employee_training_video_completions set completed_at = now()",
        "update training.members set deactivated = true",
        "delete from training.members",
    ):
        training.conn.execute(change)
        assert _tick(training, training_completions_refresh).run_requests, change
        assert training.fill().success
        assert _tick(training, training_completions_refresh).skip_message, change
        assert all(each.passed for each in training.check().values()), change


def test_both_sensors_are_evaluated_at_least_twice_a_minute(training):
    for sensor in (training_organizations_sync, training_completions_refresh):
        assert sensor.minimum_interval_seconds <= 30
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING


def _judged(training):
    """The results of each check, oldest first, without planned evaluations."""
    return {
        name: [
            record.event.dagster_event.event_specific_data.passed
            for record in reversed(
                training.instance.event_log_storage.get_asset_check_execution_history(
                    dg.AssetCheckKey(dg.AssetKey(asset.split("/")), name), limit=100
                )
            )
        ]
        for name, asset in zip(CHECKS, [COMPLETIONS.asset] * 2 + [PROGRESS.asset] * 2, strict=True)
    }


def test_each_run_of_the_job_evaluates_the_checks_even_in_quick_succession(training):
    training.add_organization("org_1", ["mem_1"])
    assert training.fill().success
    first = {name: len(passed) for name, passed in _judged(training).items()}
    assert set(first) == set(CHECKS) and min(first.values()) >= 1
    training.conn.execute("delete from training.employee_training_video_completions")
    training.conn.execute("delete from backfill.stale_marks")
    training.add_organization("org_2", ["mem_2"], day=2)
    assert training.fill("org_2").success
    second = _judged(training)
    assert {name: len(passed) for name, passed in second.items()} == {n: 2 * c for n, c in first.items()}
    assert second["every_member_has_its_records"] == [True] * first["fresh"] + [False] * first["fresh"]


def test_a_check_evaluation_names_its_run(training):
    training.add_organization("org_1", ["mem_1"])
    run_id = training.fill().run_id
    key = dg.AssetCheckKey(dg.AssetKey(PROGRESS.asset.split("/")), "fresh")
    [newest] = training.instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    assert newest.event.dagster_event.event_specific_data.metadata["run"].value == run_id


def test_a_rollback_evaluates_the_checks(training):
    training.add_organization("org_1", ["mem_1"])
    run = training.fill()
    training.roll_back(backfill=run.run_id, dry_run=False)
    assert not _judged(training)["every_member_has_its_records"][-1]


def test_partially_written_assets_are_checked_too(training):
    training.add_organization("org_1", ["mem_1"])
    training.add_organization("org_2", ["mem_2"], day=2)
    training.conn.execute(
        "alter table training.organization_training_progress add constraint no_org_1 check (organization_id <> 'org_1')"
    )
    assert not training.materialize("org_1", "org_2").success
    assert _judged(training)["no_open_failures"] == [False]
    check = training.check()["no_open_failures"]
    assert not check.passed and "org_1" in check.description


def test_a_failing_run_of_the_job_evaluates_the_checks(training):
    training.add_organization("org_1", ["mem_1"])
    training.conn.execute(
        "alter table training.organization_training_progress add constraint no_org_1 check (organization_id <> 'org_1')"
    )
    assert not training.fill().success
    assert not _judged(training)["no_open_failures"][-1]


def test_the_checks_also_run_every_ten_minutes(training):
    definitions = dg.Definitions(
        assets=[build_assets(TRAINING)],
        asset_checks=[TRAINING.rules.definition()],
        resources=training.resources,
    )

    def requested(at, cursor=None):
        return dg.evaluate_automation_conditions(
            defs=definitions, instance=training.instance, evaluation_time=at, cursor=cursor
        )

    noon = datetime(2024, 1, 1, 12, 1, tzinfo=UTC)
    first = requested(noon)
    assert requested(noon + timedelta(minutes=8), first.cursor).total_requested == 0
    assert requested(noon + timedelta(minutes=10), first.cursor).total_requested == len(CHECKS)


def test_an_organization_that_waits_too_long_is_a_warning(training):
    training.add_organization("org_1", ["mem_1"])
    assert training.check()["fresh"].passed
    training.conn.execute("update backfill.stale_marks set marked_at = now() - interval '11 minutes'")
    fresh = training.check()["fresh"]
    assert not fresh.passed and fresh.severity is dg.AssetCheckSeverity.WARN
    evaluation = training.check()["every_member_has_its_records"]
    assert not evaluation.passed and "org_1" in evaluation.description


def test_a_wrong_count_is_detected(training):
    training.add_organization("org_1", ["mem_1"])
    training.fill()
    training.conn.execute("update training.organization_training_progress set completed = 2, percent = 67")
    check = training.check()["progress_is_counted_right"]
    assert not check.passed and "org_1" in check.description


def test_the_operators_queries_run_unchanged(training, project_root, conn: psycopg.Connection):
    training.add_organization("org_1", ["mem_1"])
    training.fill()
    monitoring = project_root / "sql" / "monitoring"
    found = [path for mine in ("training_*.sql", "backfill_*.sql") for path in sorted(monitoring.glob(mine))]
    assert len(found) >= 5
    for path in found:
        assert conn.execute(path.read_bytes()).description is not None, path.name


def test_the_domain_is_in_the_code_location():
    keys = {key.to_user_string() for key in defs().resolve_asset_graph().get_all_asset_keys()}
    assert "training/employee_training_video_completions" in keys
