"""Rolling back one backfill: it removes only its incomplete records, and is a dry run by default."""

import dagster as dg
import psycopg
import pytest

from dagster_backfills.components.assets import build_assets
from dagster_backfills.defs.training.declared import COMPLETIONS, TRAINING
from dagster_backfills.domains.training import rollback
from dagster_backfills.domains.training.rollback import Preview, preview
from dagster_backfills_tests.conftest import database_name, new_database
from dagster_backfills_tests.domains.training.conftest import Training


@pytest.fixture(scope="module")
def filled(server_url, template):
    """Two organizations, filled by one run; then a third, and a new member of the first, by another.

    The name of the database, to be cloned, and the runs.
    """
    with new_database(server_url, template) as url:
        with psycopg.connect(url, autocommit=True) as conn, dg.DagsterInstance.ephemeral() as instance:
            training = Training(url, conn, instance)
            training.add_videos()
            for number in (1, 2):
                training.add_organization(f"org_{number}", [f"mem_{number}a", f"mem_{number}b"], day=number)
            training.runs["first"] = training.fill().run_id
            training.add_organization("org_3", ["mem_3a"], day=3)
            training.add_member("org_1", "mem_1c")
            training.runs["second"] = training.fill().run_id
            training.complete("mem_1a", "sat-2")
            training.fill()
        yield database_name(url), training.runs


@pytest.fixture
def database_url(server_url, filled):
    with new_database(server_url, filled[0]) as url:
        yield url


@pytest.fixture
def school(database_url, conn, instance, filled):
    return Training(database_url, conn, instance, runs=filled[1])


def _count(school):
    return school.rows("select count(*) from training.employee_training_video_completions")[0][0]


def _report(run):
    [event] = [e for e in run.all_events if e.is_asset_observation]
    metadata = event.asset_observation_data.asset_observation.metadata
    return {name: value.value for name, value in metadata.items()}


def test_it_is_a_dry_run_by_default(school):
    before = _count(school)
    run = school.roll_back(backfill=school.runs["first"])
    assert run.success
    assert _count(school) == before == 18
    report = _report(run)
    assert report["dry_run"] is True
    assert (report["records_to_remove"], report["records_kept_completed"], report["records_removed"]) == (
        11,
        1,
        0,
    )


def test_it_removes_incomplete_records_that_the_backfill_created(school):
    run = school.roll_back(backfill=school.runs["first"], dry_run=False)
    assert run.success
    assert _report(run)["records_removed"] == 11
    assert school.records("org_1") == {("mem_1a", "sat-2"), *(("mem_1c", f"sat-{n}") for n in (1, 2, 3))}
    assert school.records("org_2") == set()
    assert len(school.records("org_3")) == 3


def test_the_table_is_analyzed_before_records_are_removed(school):
    """Otherwise the planner expects few records, and each batch reads the whole table."""
    known = "select count(*) from pg_stats where tablename = 'employee_training_video_completions'"
    school.roll_back(backfill=school.runs["first"])
    assert school.rows(known) == [(0,)]
    school.roll_back(backfill=school.runs["first"], dry_run=False)
    assert school.rows(f"{known} and attname in ('member_id', 'completed_at', 'backfill_id')") == [(3,)]


def test_the_counts_are_updated_at_once(school):
    school.roll_back(backfill=school.runs["first"], dry_run=False)
    assert school.progress("org_1") == (3, 4, 1, 25)
    assert school.progress("org_2") == (2, 0, 0, 0)
    assert school.uncounted == set()
    check = school.check()["progress_is_counted_right"]
    assert check.passed


def test_automation_does_not_recreate_the_removed_records(school):
    school.roll_back(backfill=school.runs["first"], dry_run=False)
    school.fill()
    assert school.records("org_2") == set()
    check = school.check()["every_member_has_its_records"]
    assert not check.passed
    assert "org_2" in check.description


def test_a_rolled_back_organization_can_be_filled_again(school):
    school.roll_back(backfill=school.runs["first"], dry_run=False)
    school.fill(which="missing")
    assert _count(school) == 18
    assert school.rows(
        "select completed_at is not null from training.employee_training_video_completions"
        " where member_id = 'mem_1a' and video_id = 'sat-2'"
    ) == [(True,)]
    assert all(each.passed for each in school.check().values())


def test_it_can_be_repeated(school):
    school.roll_back(backfill=school.runs["first"], dry_run=False)
    again = school.roll_back(backfill=school.runs["first"], dry_run=False)
    assert again.success
    assert (_report(again)["records_to_remove"], _report(again)["records_kept_completed"]) == (0, 1)
    assert _count(school) == 7


def test_a_record_completed_after_the_preview_is_kept(school, make_connection):
    with make_connection() as other:
        plan = preview(other, school.runs["first"])
        assert plan.remove == 11
        school.complete("mem_2a", "sat-1")
        removed = [rollback.remove_batch(other, batch, school.runs["first"]) for batch in plan.batches()]
    assert sum(removed) == 10
    assert school.records("org_2") == {("mem_2a", "sat-1")}


def test_each_batch_of_a_rollback_is_committed(school, monkeypatch, make_connection):
    monkeypatch.setattr(rollback, "_BATCH_RECORDS", 1)
    with make_connection() as conn:
        batches = list(preview(conn, school.runs["first"]).batches())
        assert batches == [["org_1"], ["org_2"]]
        assert rollback.remove_batch(conn, batches[0], school.runs["first"]) == 5
    # Interrupted here; repeating it does the rest.
    assert _report(school.roll_back(backfill=school.runs["first"], dry_run=False))["records_removed"] == 6


def test_removing_every_incomplete_record_needs_its_own_flag(school):
    school.conn.execute(
        "update training.employee_training_video_completions set backfill_id = null where member_id = 'mem_3a'"
    )
    with pytest.raises(dg.DagsterUserCodeExecutionError):
        school.roll_back(dry_run=False)
    assert _count(school) == 18
    with pytest.raises(dg.DagsterUserCodeExecutionError):
        school.roll_back(backfill=school.runs["first"], remove_all_incomplete=True, dry_run=False)
    assert _count(school) == 18
    assert school.roll_back(remove_all_incomplete=True).success
    assert _count(school) == 18
    assert school.roll_back(remove_all_incomplete=True, dry_run=False).success
    assert school.rows("select member_id, video_id from training.employee_training_video_completions") == [
        ("mem_1a", "sat-2")
    ]


def test_an_unknown_backfill_is_rejected_with_the_known_ones(school):
    run = school.roll_back(backfill="nosuchid", dry_run=False)
    assert not run.success
    [failure] = [e for e in run.all_events if e.is_step_failure]
    message = failure.step_failure_data.user_failure_data.description
    assert "There is no backfill 'nosuchid'" in message
    assert school.runs["first"] in message and school.runs["second"] in message


def test_a_dagster_backfill_is_undone_by_its_own_id(school):
    for number in (4, 5):
        school.add_organization(f"org_{number}", [f"mem_{number}"], day=number)
        school.instance.add_dynamic_partitions("training_organizations", [f"org_{number}"])
        dg.materialize(
            [build_assets(TRAINING)],
            partition_key=f"org_{number}",
            instance=school.instance,
            resources=school.resources,
            tags={"dagster/backfill": "qwertyui"},
        )
    assert _count(school) == 18 + 6
    assert school.roll_back(backfill="qwertyui", dry_run=False).success
    assert _count(school) == 18


def test_the_undone_records_are_reported_on_their_asset(school):
    school.roll_back(backfill=school.runs["first"], dry_run=False)
    [record] = school.instance.fetch_observations(dg.AssetKey(COMPLETIONS.asset.split("/")), limit=1).records
    assert record.asset_observation.metadata["records_removed"].value == 11


def test_batches_never_split_an_organization_and_skip_those_without_removals():
    plan = Preview([("a", 15_000, 0), ("b", 0, 7), ("c", 6_000, 1), ("d", 50_000, 0), ("e", 1, 0)])
    assert list(plan.batches()) == [["a"], ["c"], ["d"], ["e"]]
    assert (plan.remove, plan.keep) == (71_001, 8)
