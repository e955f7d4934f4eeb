"""Which organizations a change makes stale, and how they are refreshed."""

import psycopg
import pytest


@pytest.fixture
def school(training):
    """Three organizations with two members each, filled and counted: nothing is stale."""
    for number in (1, 2, 3):
        training.add_organization(f"org_{number}", [f"mem_{number}a", f"mem_{number}b"], day=number)
    training.fill()
    assert training.due == training.uncounted == set()
    return training


def test_a_new_organization_is_due_with_or_without_members(training):
    training.add_organization("org_new")
    assert training.due == training.uncounted == {"org_new"}
    training.fill()
    assert training.progress("org_new") == (0, 0, 0, 0)
    assert training.due == training.uncounted == set()


def test_a_new_member_makes_only_its_organization_due_and_only_that_is_filled(school):
    school.add_member("org_2", "mem_2c")
    assert school.due == school.uncounted == {"org_2"}
    run = school.fill()
    worked = school.rows(
        "select distinct unnest(partitions) from backfill.batches where run_id = %s", run.run_id
    )
    assert worked == [("org_2",)]
    assert ("mem_2c", "sat-1") in school.records("org_2")
    assert school.progress("org_2") == (3, 9, 0, 0)


def test_a_new_member_who_is_deactivated_changes_nothing(school):
    school.add_member("org_2", "mem_2c", deactivated=True)
    assert school.due == school.uncounted == set()


def test_a_deactivated_member_no_longer_counts_and_a_reactivated_one_is_filled(school):
    school.conn.execute("update training.members set deactivated = true where id = 'mem_1a'")
    assert school.due == set() and school.uncounted == {"org_1"}
    school.add_videos(["sat-new"])
    school.fill()
    assert school.progress("org_1") == (1, 4, 0, 0)
    assert ("mem_1a", "sat-new") not in school.records("org_1")
    school.conn.execute("update training.members set deactivated = false where id = 'mem_1a'")
    assert school.due == school.uncounted == {"org_1"}
    school.fill()
    assert ("mem_1a", "sat-new") in school.records("org_1")
    assert school.progress("org_1") == (2, 8, 0, 0)


def test_a_new_video_makes_every_organization_due_and_creates_only_its_own_records(school):
    school.complete("mem_1a")
    school.add_videos(["sat-new"])
    assert school.due == {"org_1", "org_2", "org_3"}
    before = school.rows("select count(*) from training.employee_training_video_completions")[0][0]
    school.fill()
    assert school.rows(
        "select video_id, count(*) from training.employee_training_video_completions where id > %s group by 1",
        before,
    ) == [("sat-new", 6)]
    assert school.progress("org_1") == (2, 8, 1, 13)


def test_deleting_a_video_deletes_its_records_and_updates_the_counts(school):
    school.conn.execute("delete from training.training_videos where id = 'sat-3'")
    assert school.due == set() and school.uncounted == {"org_1", "org_2", "org_3"}
    school.fill()
    assert school.progress("org_3") == (2, 4, 0, 0)


def test_a_completed_video_makes_only_the_count_stale(school):
    school.complete("mem_3a")
    assert school.due == set() and school.uncounted == {"org_3"}
    run = school.fill()
    assert school.rows("select distinct asset from backfill.batches where run_id = %s", run.run_id) == [
        ("training/organization_training_progress",)
    ]
    assert school.progress("org_3") == (2, 6, 1, 17)


def test_saving_a_completion_again_marks_nothing(school):
    school.complete("mem_3a")
    school.fill()
    school.complete("mem_3a")
    assert school.uncounted == set()


def test_irrelevant_changes_mark_nothing(school):
    school.conn.execute("update training.members set role = 'admin', user_email = 'x@example.org'")
    school.conn.execute("update training.organizations set name = 'New name'")
    school.conn.execute("update training.training_videos set title = 'New title'")
    school.conn.execute("delete from training.members where id = 'nobody'")
    school.conn.execute("delete from training.training_videos where id = 'nothing'")
    assert school.due == school.uncounted == set()


def test_the_records_of_a_member_who_moves_count_in_the_new_organization(school):
    school.complete("mem_1a")
    school.fill()
    school.conn.execute("update training.members set organization_id = 'org_2' where id = 'mem_1a'")
    assert school.due == {"org_2"} and school.uncounted == {"org_1", "org_2"}
    assert school.rows(
        "select distinct organization_id from training.employee_training_video_completions where member_id = 'mem_1a'"
    ) == [("org_2",)]
    school.fill()
    assert school.progress("org_1") == (1, 3, 0, 0)
    assert school.progress("org_2") == (3, 9, 1, 11)


def test_a_deleted_member_no_longer_counts(school):
    school.conn.execute("delete from training.members where id = 'mem_1a'")
    assert school.uncounted == {"org_1"}
    school.fill()
    assert school.progress("org_1") == (1, 3, 0, 0)


def test_a_deleted_organization_has_no_progress_row_and_is_not_marked(school):
    school.conn.execute("delete from training.organizations where id = 'org_1'")
    assert school.progress("org_1") is None
    assert school.fill().success


def test_a_record_that_the_application_inserts_without_an_organization_is_counted(school):
    school.add_member("org_1", "mem_1c")
    school.conn.execute(
        "insert into training.employee_training_video_completions (member_id, video_id, completed_at)"
        " values ('mem_1c', 'sat-1', now())"
    )
    school.fill()
    assert school.progress("org_1") == (3, 9, 1, 11)
    assert school.rows(
        "select organization_id, backfill_id from training.employee_training_video_completions"
        " where member_id = 'mem_1c' and video_id = 'sat-1'"
    ) == [("org_1", None)]


def test_a_record_without_a_member_is_rejected(school):
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="there is no member 'nobody'"):
        school.conn.execute(
            "insert into training.employee_training_video_completions (member_id, video_id)"
            " values ('nobody', 'sat-1')"
        )


def test_many_changes_in_one_statement_make_one_mark_per_organization(school):
    school.conn.execute(
        "insert into training.members (id, organization_id, user_email)"
        " select 'new_' || n, 'org_' || 1 + n % 2, 'x' from generate_series(1, 1000) as n"
    )
    assert school.rows(
        "select partition, changes from backfill.stale where asset like '%%completions' order by 1"
    ) == [("org_1", 1), ("org_2", 1)]


def test_an_organization_changed_during_a_run_stays_due(school, make_connection):
    other = make_connection()
    other.execute("begin")
    other.execute(
        "insert into training.members (id, organization_id, user_email) values ('late', 'org_1', 'x')"
    )
    school.add_member("org_1", "early")
    school.fill()
    assert ("early", "sat-1") in school.records("org_1")
    other.execute("commit")
    assert school.due == {"org_1"}
    school.fill()
    assert ("late", "sat-1") in school.records("org_1")
    assert school.due == set()


def test_an_application_role_without_rights_on_the_ledger_can_write(school):
    school.conn.execute(
        """
        do $$ begin create role training_application; exception when duplicate_object then null; end $$;
        grant usage on schema training to training_application;
        grant select, insert, update, delete on all tables in schema training to training_application;
        """
    )
    school.conn.execute("set role training_application")
    school.add_organization("org_9", ["mem_9"])
    school.complete("mem_1a")
    school.conn.execute("reset role")
    assert school.due == {"org_9"} and school.uncounted == {"org_9", "org_1"}


def test_truncating_the_records_makes_the_count_stale(school):
    school.conn.execute("truncate training.employee_training_video_completions")
    assert school.due == set() and school.uncounted == {"org_1", "org_2", "org_3"}
    assert school.rows("select 1 from training.employee_training_video_completions") == []


def test_the_count_is_due_if_a_run_dies_after_it_created_records(school):
    """Records are committed before they are counted, so a run that dies in between leaves the count due."""
    school.conn.execute("delete from training.employee_training_video_completions where member_id = 'mem_1a'")
    school.conn.execute("truncate backfill.stale_marks")
    school.conn.execute(
        "insert into training.employee_training_video_completions (organization_id, member_id, video_id, backfill_id)"
        " values ('org_1', 'mem_1a', 'sat-1', 'died')"
    )
    assert school.due == set() and school.uncounted == {"org_1"}
