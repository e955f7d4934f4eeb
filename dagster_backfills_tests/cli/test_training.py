"""`backfills training`, as its users type it."""

import json

import psycopg
import pytest

from dagster_backfills_tests.cli.conftest import Cli

pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture
def school(conn: psycopg.Connection) -> psycopg.Connection:
    """Two organizations, two members each, two videos; no record yet."""
    conn.execute("insert into training.training_videos values ('sat-1', 'One', 1), ('sat-2', 'Two', 2)")
    conn.execute(
        "insert into training.organizations values ('org_a', 'Älteste', '2024-01-01'), ('org,b', 'Other', '2024-01-02')"
    )
    conn.execute(
        "insert into training.members (id, organization_id, user_email) values"
        " ('a1', 'org_a', 'x'), ('a2', 'org_a', 'x'), ('b1', 'org,b', 'x'), ('b2', 'org,b', 'x')"
    )
    return conn


def test_status_lists_organizations_oldest_first_and_refuses_an_unknown_one(
    cli: Cli, school: psycopg.Connection
) -> None:
    listed = cli("training", "status")
    assert listed.returncode == 0, listed.stderr
    assert [line.split("\t")[:5] for line in listed.stdout.splitlines()[1:]] == [
        ["Älteste", "org_a", "2", "0", "4"],
        ["Other", "org,b", "2", "0", "4"],
    ]
    one = json.loads(cli("training", "status", "org,b", "--json").stdout)
    assert [each["organization_id"] for each in one["organizations"]] == ["org,b"]
    unknown = cli("training", "status", "org_q")
    assert unknown.returncode == 2
    assert "There is no organization 'org_q'" in unknown.stderr and "org_a (Älteste)" in unknown.stderr


def test_run_asks_first_and_refuses_an_unknown_organization(cli: Cli, school: psycopg.Connection) -> None:
    asked = cli("training", "run")
    assert asked.returncode == 2
    assert "Fill 2 organizations?" in asked.stderr and "--yes" in asked.stderr
    unknown = cli("training", "run", "--org", "nobody", "--yes")
    assert unknown.returncode == 2
    assert school.execute("select count(*) from training.employee_training_video_completions").fetchone() == (
        0,
    )


def test_one_organization_then_all_then_the_undo(cli: Cli, school: psycopg.Connection) -> None:
    one = cli("training", "run", "--org", "org,b", "--yes", "--json")
    assert one.returncode == 0, one.stderr
    report = json.loads(one.stdout)
    assert (report["organizations"], report["members"], report["videos"]) == (1, 2, 2)
    assert (report["records_created"], report["records_already_there"], report["failures"]) == (4, 0, 0)
    every = cli("training", "run", "--yes")
    assert every.returncode == 0, every.stderr
    assert (
        "2 organizations, 4 members, 2 videos: 4 records created, 4 already there, 0 failed" in every.stderr
    )

    school.execute(
        "update training.employee_training_video_completions set completed_at = now() where member_id = 'b1'"
    )
    dry = cli("training", "rollback", report["run_id"])
    assert dry.returncode == 0, dry.stderr
    assert "2 records to remove and 2 to keep" in dry.stderr and "dry run" in dry.stderr
    assert school.execute("select count(*) from training.employee_training_video_completions").fetchone() == (
        8,
    )
    real = cli("training", "rollback", report["run_id"], "--execute", "--yes", "--json")
    assert real.returncode == 0, real.stderr
    assert json.loads(real.stdout)["removed"] == 2
    assert school.execute(
        "select member_id, count(*) from training.employee_training_video_completions group by 1 order by 1"
    ).fetchall() == [("a1", 2), ("a2", 2), ("b1", 2)]


def test_a_rollback_says_what_it_needs(cli: Cli, school: psycopg.Connection) -> None:
    nothing = cli("training", "rollback")
    assert nothing.returncode == 2 and "--remove-all-incomplete" in nothing.stderr
    unknown = cli("training", "rollback", "nosuchid")
    assert unknown.returncode == 2 and "There is no backfill 'nosuchid'" in unknown.stderr


def test_a_member_that_fails_is_told_and_can_be_tried_again(cli: Cli, school: psycopg.Connection) -> None:
    school.execute(
        "alter table training.employee_training_video_completions add constraint not_a2 check (member_id <> 'a2')"
    )
    done = cli("training", "run", "--yes")
    assert done.returncode == 1
    assert "6 records created, 0 already there, 1 failed" in done.stderr
    status = cli("training", "status")
    assert "org_a: member 'a2'" in status.stderr and "not_a2" in status.stderr
    school.execute("alter table training.employee_training_video_completions drop constraint not_a2")
    again = cli("failures", "retry", "--yes")
    assert again.returncode == 0, again.stderr
    assert school.execute("select count(*) from training.employee_training_video_completions").fetchone() == (
        8,
    )
