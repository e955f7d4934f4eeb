"""The verbs on `training_completions` on a terminal, and training's own rollback."""

import json

import psycopg
import pytest

from dagster_backfills_tests.cli.conftest import Cli

pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture
def school(conn: psycopg.Connection) -> psycopg.Connection:
    """Two organizations with two members each, and two videos. No records yet."""
    conn.execute("insert into training.training_videos values ('sat-1', 'One', 1), ('sat-2', 'Two', 2)")
    conn.execute(
        "insert into training.organizations values ('org_a', 'Älteste', '2024-01-01'), ('org,b', 'Other', '2024-01-02')"
    )
    conn.execute(
        "insert into training.members (id, organization_id, user_email) values"
        " ('a1', 'org_a', 'x'), ('a2', 'org_a', 'x'), ('b1', 'org,b', 'x'), ('b2', 'org,b', 'x')"
    )
    return conn


def test_status_lists_organizations_finds_one_by_part_of_its_name_and_rejects_an_unknown_one(
    cli: Cli, school: psycopg.Connection
) -> None:
    listed = cli("status", "training_completions")
    assert listed.returncode == 0, listed.stderr
    assert [line.split("\t")[:3] for line in listed.stdout.splitlines()[1:]] == [
        ["org,b", "Other", "missing, stale"],
        ["org_a", "Älteste", "missing, stale"],
    ]
    assert (
        "2 partitions, 2 need a backfill: 2 missing, 2 stale, 0 failed. Next: org_a (Älteste)"
        in listed.stderr
    )
    one = json.loads(cli("status", "training", "ÄLT", "--json").stdout)
    assert [(each["partition"], each["to_create"]) for each in one] == [("org_a", 4)]
    unknown = cli("status", "training_completions", "org_q")
    assert unknown.returncode == 2
    assert "There is no partition 'org_q'" in unknown.stderr and "org_a (Älteste)" in unknown.stderr


def test_run_asks_for_confirmation_and_rejects_an_unknown_organization(
    cli: Cli, school: psycopg.Connection
) -> None:
    asked = cli("run", "training_completions")
    assert asked.returncode == 2
    assert "Write 2 partitions of training_completions?" in asked.stderr and "--yes" in asked.stderr
    unknown = cli("run", "training_completions", "-p", "nobody", "--yes")
    assert unknown.returncode == 2
    assert school.execute("select count(*) from training.employee_training_video_completions").fetchone() == (
        0,
    )


@pytest.mark.e2e
def test_one_organization_is_filled_then_all_and_the_run_is_undone(
    cli: Cli, school: psycopg.Connection
) -> None:
    one = cli("run", "training_completions", "-p", "oth", "--yes", "--json")
    assert one.returncode == 0, one.stderr
    done = json.loads(one.stdout)
    (run_id,), report = done["runs"], done["report"]
    assert [(each["table"], each["partitions"], each["inserted"]) for each in done["tables"]] == [
        ("training/employee_training_video_completions", 1, 4),
        ("training/organization_training_progress", 1, 1),
    ]
    assert (report["organizations"], report["members"], report["videos"]) == (1, 2, 2)
    assert (report["records_created"], report["records_already_there"], report["failures"]) == (4, 0, 0)
    every = cli("run", "training_completions", "--which", "all", "--yes")
    assert every.returncode == 0, every.stderr
    assert (
        "2 organizations, 4 members, 2 videos, 4 records created, 4 records already there, 0 failures"
        in every.stderr
    )
    assert "After: training_completions: 2 partitions, 0 need a backfill." in every.stderr

    school.execute(
        "update training.employee_training_video_completions set completed_at = now() where member_id = 'b1'"
    )
    dry = cli("training", "rollback", run_id)
    assert dry.returncode == 0, dry.stderr
    assert "2 records to remove and 2 to keep" in dry.stderr and "Dry run" in dry.stderr
    assert school.execute("select count(*) from training.employee_training_video_completions").fetchone() == (
        8,
    )
    real = cli("training", "rollback", run_id, "--execute", "--yes", "--json")
    assert real.returncode == 0, real.stderr
    assert json.loads(real.stdout)["removed"] == 2
    assert school.execute(
        "select member_id, count(*) from training.employee_training_video_completions group by 1 order by 1"
    ).fetchall() == [("a1", 2), ("a2", 2), ("b1", 2)]


def test_a_rollback_without_a_backfill_or_the_flag_is_rejected(cli: Cli, school: psycopg.Connection) -> None:
    nothing = cli("training", "rollback")
    assert nothing.returncode == 2 and "--remove-all-incomplete" in nothing.stderr
    unknown = cli("training", "rollback", "nosuchid")
    assert unknown.returncode == 2 and "There is no backfill 'nosuchid'" in unknown.stderr


@pytest.mark.e2e
def test_a_failed_member_is_reported_and_can_be_retried(cli: Cli, school: psycopg.Connection) -> None:
    school.execute(
        "alter table training.employee_training_video_completions add constraint not_a2 check (member_id <> 'a2')"
    )
    done = cli("run", "training_completions", "--yes")
    assert done.returncode == 1
    assert "6 records created, 0 records already there, 1 failures" in done.stderr
    first, rest = done.stderr.splitlines()[-2:]
    asset = "training/employee_training_video_completions"
    assert first.startswith(f"1 could not be written. The first: {asset} org_a a2: ") and "not_a2" in first
    assert rest == "Show all: backfills failures training_completions"
    failed = cli("status", "training_completions", "--failed")
    assert [line.split("\t")[:3] for line in failed.stdout.splitlines()[1:]] == [
        ["org_a", "Älteste", "missing, stale, 1 failed"]
    ]
    school.execute("alter table training.employee_training_video_completions drop constraint not_a2")
    again = cli("run", "training_completions", "--which", "failed", "--yes")
    assert again.returncode == 0, again.stderr
    assert school.execute("select count(*) from training.employee_training_video_completions").fetchone() == (
        8,
    )
