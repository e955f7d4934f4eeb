"""Creating records: which are created, which are unchanged, and what is reported."""

import dagster as dg
import pytest

from dagster_backfills.components.assets import build_assets
from dagster_backfills.defs.training.declared import COMPLETIONS, PROGRESS, TRAINING

ODD_IDS = [
    "org,with,commas",
    "org 'single' \"double\"",
    "org with  spaces",
    "org/with/slashes",
    "組織-Ωμέγα-é",
    "%(org)s :org {org} $org \\",
]


def test_every_member_gets_one_record_per_video_and_the_organization_is_counted(training):
    training.add_organization("org_1", ["mem_1", "mem_2"])
    assert training.materialize("org_1").success
    assert training.records("org_1") == {(m, f"sat-{n}") for m in ("mem_1", "mem_2") for n in (1, 2, 3)}
    assert training.progress("org_1") == (2, 6, 0, 0)
    assert training.rows(
        "select count(*) from training.employee_training_video_completions where completed_at is null"
    ) == [(6,)]


def test_a_second_run_creates_nothing_and_touches_no_record(training):
    training.add_organization("org_1", ["mem_1"])
    training.materialize("org_1")
    training.complete("mem_1")
    before = training.rows(
        "select xmin::text, * from training.employee_training_video_completions order by id"
    )
    result = training.materialize("org_1")
    assert result.success
    assert before == training.rows(
        "select xmin::text, * from training.employee_training_video_completions order by id"
    )
    assert training.progress("org_1") == (1, 3, 1, 33)
    assert _report(training)["records_created"] == 0
    assert _report(training)["records_already_there"] == 3


def test_a_deactivated_member_gets_no_new_records_and_keeps_existing_ones(training):
    training.add_organization("org_1", ["mem_1", "mem_2"])
    training.add_member("org_1", "mem_3", deactivated=True)
    training.materialize("org_1")
    assert {member for member, _ in training.records("org_1")} == {"mem_1", "mem_2"}
    training.conn.execute("update training.members set deactivated = true where id = 'mem_2'")
    training.materialize("org_1")
    assert {member for member, _ in training.records("org_1")} == {"mem_1", "mem_2"}
    assert training.progress("org_1") == (1, 3, 0, 0)


def test_an_organization_without_members_is_done_with_zeros(training):
    training.add_organization("org_empty")
    assert training.materialize("org_empty").success
    assert training.progress("org_empty") == (0, 0, 0, 0)
    assert training.materialized() == {"org_empty"}
    assert all(each.passed for each in training.check().values())


def test_without_any_video_nothing_is_created(training):
    training.conn.execute("delete from training.training_videos")
    training.add_organization("org_1", ["mem_1"])
    assert training.materialize("org_1").success
    assert training.progress("org_1") == (1, 0, 0, 0)


def test_percent_is_rounded_half_up(training):
    expected = {0: 0, 1: 13, 2: 25, 3: 38, 7: 88, 8: 100}
    training.add_videos([f"more-{n}" for n in range(5)])
    for completed in expected:
        training.add_organization(f"org_{completed}", [f"mem_{completed}"])
    training.fill()
    for completed in expected:
        training.conn.execute(
            "update training.employee_training_video_completions set completed_at = now() where id in"
            " (select id from training.employee_training_video_completions where member_id = %s"
            " order by id limit %s)",
            [f"mem_{completed}", completed],
        )
    training.fill()
    for completed, percent in expected.items():
        assert training.progress(f"org_{completed}") == (1, 8, completed, percent)


def test_one_run_fills_many_organizations_and_reports_each_for_both_assets(training):
    for number in range(1, 6):
        training.add_organization(f"org_{number}", [f"mem_{number}_{n}" for n in range(number)], day=number)
    assert training.materialize("org_2", "org_3", "org_4").success
    assert training.materialized() == {"org_2", "org_3", "org_4"}
    assert training.materialized(PROGRESS.asset) == {"org_2", "org_3", "org_4"}
    assert training.progress("org_1") is None
    assert training.progress("org_4") == (4, 12, 0, 0)


def test_organizations_are_processed_oldest_first(training):
    training.settings = {"batch_units": 1, "target_seconds": 0}
    for organization, day in (("b_third", 3), ("z_first", 1), ("a_second", 2)):
        training.add_organization(organization, [f"mem_{organization}"], day=day)
    training.fill(which="all")
    worked = training.rows(
        "select partitions[1] from backfill.batches where asset = %s order by committed_at", COMPLETIONS.asset
    )
    assert worked == [("z_first",), ("a_second",), ("b_third",)]


def test_ids_may_contain_commas_quotes_spaces_slashes_and_non_ascii_letters(training):
    for organization in ODD_IDS:
        training.add_organization(organization, [f"mem {organization}"])
    result = training.fill(which="all")
    assert result.success
    for organization in ODD_IDS:
        assert training.records(organization) == {(f"mem {organization}", f"sat-{n}") for n in (1, 2, 3)}
        assert training.progress(organization) == (1, 3, 0, 0)
    assert training.materialized() == set(ODD_IDS)
    assert all(each.passed for each in training.check().values())


@pytest.mark.parametrize("organization", ODD_IDS)
def test_an_odd_id_can_be_materialized_alone(training, organization):
    training.add_organization(organization, ["mem_1"])
    assert training.materialize(organization).success
    assert training.progress(organization) == (1, 3, 0, 0)


def test_records_have_the_id_of_the_backfill_that_created_them(training):
    training.add_organization("org_1", ["mem_1"])
    result = training.materialize("org_1")
    assert training.rows("select distinct backfill_id from training.employee_training_video_completions") == [
        (result.run_id,)
    ]
    training.add_organization("org_2", ["mem_2"])
    training.instance.add_dynamic_partitions("training_organizations", ["org_2"])
    dg.materialize(
        [build_assets(TRAINING)],
        partition_key="org_2",
        instance=training.instance,
        resources=training.resources,
        tags={"dagster/backfill": "abcdefgh"},
    )
    assert training.rows(
        "select distinct backfill_id from training.employee_training_video_completions where member_id = 'mem_2'"
    ) == [("abcdefgh",)]


def test_after_the_records_alone_the_count_is_due(training):
    training.add_organization("org_1", ["mem_1"])
    training.fill("org_1")
    training.add_member("org_1", "mem_2")
    training.materialize("org_1", select=[COMPLETIONS.asset])
    assert training.progress("org_1") == (1, 3, 0, 0)
    assert training.uncounted == {"org_1"} and not training.due
    training.fill()
    assert training.progress("org_1") == (2, 6, 0, 0)
    assert not training.uncounted


def test_the_count_alone_creates_no_record(training):
    training.add_organization("org_1", ["mem_1"])
    assert training.materialize("org_1", select=[PROGRESS.asset]).success
    assert training.records("org_1") == set()
    assert training.progress("org_1") == (1, 0, 0, 0)


def test_an_unknown_organization_is_named_and_nothing_is_written(training):
    training.add_organization("org_1", ["mem_1"])
    result = training.fill("org_1", "org_none")
    assert not result.success
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "There is no partition 'org_none'" in str(failure.step_failure_data.user_failure_data.description)
    assert training.records("org_1") == set()


def test_the_report_has_numbers_and_a_table(training):
    training.add_organization("org_1", ["mem_1", "mem_2"])
    training.add_organization("組織 $1$", ["mem_3"])
    training.materialize("org_1")
    training.fill(which="all")
    report = _report(training)
    assert {name: report[name] for name in ("organizations", "members", "videos", "failures")} == {
        "organizations": 2,
        "members": 3,
        "videos": 3,
        "failures": 0,
    }
    assert (report["records_created"], report["records_already_there"]) == (3, 6)
    assert "progress" not in report
    assert [row.data["organization_id"] for row in report["largest_organizations"]] == ["org_1", "組織 $1$"]


def _report(training):
    [record] = training.instance.fetch_observations(dg.AssetKey(PROGRESS.asset.split("/")), limit=1).records
    return {
        name: value.records if isinstance(value, dg.TableMetadataValue) else value.value
        for name, value in record.asset_observation.metadata.items()
    }
