"""A failing member fails alone, and the ledger and the checks name it."""

import pytest


@pytest.fixture
def school(training):
    """Two organizations of six members each."""
    for number in (1, 2):
        training.add_organization(f"org_{number}", [f"mem_{number}{n}" for n in range(6)], day=number)
    return training


def test_a_member_rejected_by_a_trigger_fails_alone(school, refuse):
    refuse("mem_13")
    result = school.materialize("org_1", "org_2")
    assert result.success
    assert school.materialized() == {"org_1", "org_2"}
    assert {member for member, _ in school.records("org_1")} == {f"mem_1{n}" for n in (0, 1, 2, 4, 5)}
    assert len(school.records("org_1")) == 15 and len(school.records("org_2")) == 18
    assert school.progress("org_1") == (6, 15, 0, 0)
    assert school.failures() == [("org_1", "mem_13", "member mem_13 may not be trained")]


def test_a_member_that_a_constraint_rejects_is_in_the_ledger_with_the_databases_message(school):
    school.conn.execute(
        "alter table training.employee_training_video_completions add constraint not_him check (member_id <> 'mem_25')"
    )
    assert school.materialize("org_1", "org_2").success
    [(organization, member, message)] = school.failures()
    assert (organization, member) == ("org_2", "mem_25")
    assert 'violates check constraint "not_him"' in message
    assert len(school.records("org_2")) == 15 and len(school.records("org_1")) == 18


def test_a_lock_that_is_never_released_fails_only_its_member(school, make_connection):
    school.settings = {"lock_timeout": 0.2}
    holder = make_connection()
    holder.execute("begin")
    holder.execute("select from training.members where id = 'mem_10' for update")
    assert school.materialize("org_1", "org_2").success
    assert school.failures() == [("org_1", "mem_10", "canceling statement due to lock timeout")]
    assert len(school.records("org_1")) == 15 and len(school.records("org_2")) == 18
    holder.execute("rollback")


def test_each_of_several_failing_members_is_in_the_ledger(school, refuse):
    for member in ("mem_10", "mem_15", "mem_22"):
        refuse(member)
    school.fill(which="all")
    assert [(o, m) for o, m, _ in school.failures()] == [
        ("org_1", "mem_10"),
        ("org_1", "mem_15"),
        ("org_2", "mem_22"),
    ]
    assert len(school.records("org_1")) == 12 and len(school.records("org_2")) == 15


def test_the_check_fails_and_names_the_member_and_no_other_organization(school, refuse):
    refuse("mem_13")
    school.materialize("org_1", "org_2")
    checks = school.check()
    check = checks["every_member_has_its_records"]
    assert not check.passed
    assert "org_1 (mem_13)" in check.description and "org_2" not in check.description
    [breach] = check.metadata["first_breaches"].records
    assert breach.data["records_missing"] == 3
    assert breach.data["message"] == "member mem_13 may not be trained"
    assert not checks["no_open_failures"].passed
    assert "mem_13" in checks["no_open_failures"].description
    assert checks["progress_is_counted_right"].passed


def test_a_later_run_that_succeeds_resolves_the_entry_and_the_checks_pass(school, refuse):
    refuse("mem_13")
    school.materialize("org_1", "org_2")
    school.conn.execute("delete from public.refused")
    school.materialize("org_1", "org_2")
    assert school.failures() == []
    assert school.rows("select unit, resolved_at is not null from backfill.failures") == [("mem_13", True)]
    assert school.progress("org_1") == (6, 18, 0, 0)
    assert all(each.passed for each in school.check().values())


def test_a_member_that_fails_again_has_one_more_attempt(school, refuse):
    refuse("mem_13")
    school.materialize("org_1")
    first = school.rows("select attempts from backfill.failures")
    school.materialize("org_1")
    assert len(first) == 1
    assert school.rows("select attempts > %s from backfill.failures", first[0][0]) == [(True,)]


def test_automation_retries_a_failed_member_but_not_at_once(school, refuse):
    refuse("mem_13")
    school.fill()
    assert school.due == set()
    school.conn.execute("delete from public.refused")
    school.fill()
    assert len(school.records("org_1")) == 15
    school.conn.execute("update backfill.failures set last_seen = now() - interval '2 hours'")
    school.fill()
    assert len(school.records("org_1")) == 18
    assert school.failures() == []


def test_the_failures_of_a_deleted_member_are_resolved_by_the_next_run(school, refuse):
    refuse("mem_13")
    school.fill()
    school.conn.execute("delete from training.members where id = 'mem_13'")
    school.materialize("org_1")
    assert school.failures() == []
    assert all(each.passed for each in school.check().values())


def test_an_organization_that_cannot_be_counted_fails_alone(school):
    school.conn.execute(
        "alter table training.organization_training_progress add constraint no_org_1 check (organization_id <> 'org_1')"
    )
    result = school.materialize("org_1", "org_2")
    assert not result.success
    assert school.materialized() == {"org_2"}
    [(organization, member, message)] = school.failures()
    assert (organization, member) == ("org_1", None)
    assert 'violates check constraint "no_org_1"' in message
    assert school.rows("select distinct asset from backfill.failures") == [
        ("training/organization_training_progress",)
    ]
    school.conn.execute("alter table training.organization_training_progress drop constraint no_org_1")
    assert school.materialize("org_1").success
    assert school.failures() == []
    assert school.materialized() == {"org_1", "org_2"}


def test_the_report_counts_the_failures(school, refuse):
    refuse("mem_13")
    run = school.materialize("org_1", "org_2")
    observed = [e for e in run.all_events if e.is_asset_observation]
    metadata = observed[0].asset_observation_data.asset_observation.metadata
    assert metadata["failures"].value == 1
    [failed] = metadata["first_failures"].records
    assert (failed.data["member_id"], failed.data["organization_name"]) == ("mem_13", "Name of org_1")


def test_an_applications_trigger_may_raise_any_error_for_a_member(school):
    school.conn.execute(
        """
        create function public.guard() returns trigger language plpgsql as $$
        begin
            if new.member_id = 'mem_13' then
                raise exception 'member is under legal hold' using errcode = 'insufficient_privilege';
            elsif new.member_id = 'mem_24' then
                raise exception 'ask the works council' using errcode = 'AP001';
            end if;
            return new;
        end $$;
        create trigger guard before insert on training.employee_training_video_completions
        for each row execute function public.guard()
        """
    )
    assert school.fill(which="all").success
    assert school.failures() == [
        ("org_1", "mem_13", "member is under legal hold"),
        ("org_2", "mem_24", "ask the works council"),
    ]
    assert len(school.records("org_1")) == len(school.records("org_2")) == 15
