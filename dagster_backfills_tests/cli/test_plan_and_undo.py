"""`backfills plan` and `backfills undo` on a terminal."""

import json

import psycopg
import pytest

from dagster_backfills.cli.plan import show
from dagster_backfills.engine.outcome import Failure
from dagster_backfills.engine.plan import Estimate, Report
from dagster_backfills_tests.cli.conftest import Cli

pytestmark = [pytest.mark.timeout(600)]
RECORDS = "select count(*) from training.employee_training_video_completions"


@pytest.fixture
def school(conn: psycopg.Connection) -> psycopg.Connection:
    """Two organizations with two members each, and two videos. No records yet."""
    conn.execute("insert into training.training_videos values ('sat-1', 'One', 1), ('sat-2', 'Two', 2)")
    conn.execute(
        "insert into training.organizations values ('org_a', 'A', '2024-01-01'), ('org_b', 'B', '2024-01-02');"
        "insert into training.members (id, organization_id, user_email) values"
        " ('a1', 'org_a', 'x'), ('a2', 'org_a', 'x'), ('b1', 'org_b', 'x'), ('b2', 'org_b', 'x')"
    )
    return conn


@pytest.mark.e2e
def test_a_backfill_is_planned_run_and_undone(cli: Cli, school: psycopg.Connection) -> None:
    planned = cli("plan", "training_completions", "--json", "--fail-on-changes")
    assert planned.returncode == 1, planned.stderr
    plan = json.loads(planned.stdout)
    completions, progress = plan["total"].values()
    assert (completions["inserted"], progress["inserted"], plan["changes"]) == (8, 2, 10)
    assert school.execute(RECORDS).fetchone() == (0,)

    assert cli("run", "training_completions", "--yes").returncode == 0
    assert cli("plan", "training_completions", "--which", "all", "--fail-on-changes").returncode == 0
    school.execute("update training.employee_training_video_completions set completed_at = now()"
                   " where member_id = 'a1' and video_id = 'sat-1'")  # fmt: skip
    (run,) = school.execute("select run_id from backfill.runs limit 1").fetchone() or ("",)

    assert f"Run to undo: {run}.\n" in cli("undo", "training_completions").stderr
    others = cli("undo", "progress_stats", run)
    assert others.returncode == 2 and "has not written any table of progress_stats" in others.stderr
    dry = cli("undo", run[:8])
    assert dry.returncode == 0, dry.stderr
    assert "kept, changed since" in dry.stdout and "nothing was changed" in dry.stderr
    assert school.execute(RECORDS).fetchone() == (8,)
    done = json.loads(cli("undo", run, "--yes", "--json").stdout)
    assert done["total"]["training/employee_training_video_completions"] == {
        "removed": 7, "put_back": 0, "restored": 0, "kept": 1,
    }  # fmt: skip
    assert school.execute(RECORDS).fetchone() == (1,)
    assert f"Run to undo: {done['run_id']}, itself an undo." in cli("undo", done["run_id"]).stderr
    again = cli("undo", "training_completions")  # of the same run, not of its undo
    assert f"Run to undo: {run}.\n" in again.stderr and "\t0\t0\t0\t1\t0" in again.stdout, again
    assert json.loads(cli("undo", done["run_id"], "--yes", "--json").stdout)["failures"] == []
    assert school.execute(RECORDS).fetchone() == (8,)


def test_a_plan_in_which_everything_fails_shows_the_failures(capsys: pytest.CaptureFixture[str]) -> None:
    failure = Failure("shop/totals", "a", None, "NotNullViolation", "23502", "null value in column")
    show(Report([], {}, [failure], [], Estimate(0, 0, 0, 0), 0))
    printed = capsys.readouterr()
    assert "shop/totals\ta\t–\tnull value in column\n" in printed.out
    assert "Nothing to do" not in printed.err


def test_unknown_names_runs_and_partitions_are_rejected(cli: Cli, school: psycopg.Connection) -> None:
    unknown = cli("plan", "training_complations")
    assert unknown.returncode == 2 and "Did you mean training_completions?" in unknown.stderr
    stranger = cli("plan", "training_completions", "--partition", "org_c")
    assert (
        stranger.returncode == 2
        and "There is no partition 'org_c'. Did you mean" in stranger.stderr
        and "org_a (A)" in stranger.stderr
    )
    gone = cli("undo", "0000")
    assert gone.returncode == 2 and "No run ID begins with '0000'." in gone.stderr


def test_a_backfill_is_explained_paused_and_slowed_down(cli: Cli, school: psycopg.Connection) -> None:
    explained = json.loads(cli("explain", "training_completions", "a1", "--json").stdout)
    assert explained["partitions"] == ["org_a"]
    assert [row["video_id"] for row in explained["tables"][0]["now"]] == ["sat-1", "sat-2"]
    nobody = cli("explain", "training_completions", "nobody")
    assert (
        nobody.returncode == 2 and "training_completions has no unit or partition 'nobody'." in nobody.stderr
    )
    assert "paused" in cli("pause", "training_completions").stderr
    waits = "training_completions is paused; resume it with: backfills resume training_completions."
    assert waits in cli("status", "training_completions").stderr
    assert f"The run will wait: {waits}" in cli("run", "training_completions").stderr
    slower = cli("throttle", "training_completions", "--rest", "2", "--window", "22:00-05:00")
    assert "waits 2 s between batches" in slower.stderr and "22:00 to 05:00 (UTC)" in slower.stderr
    assert "paused, waits 2 s between batches" in cli("status", "--no-ticks").stdout
    assert "not paused" in cli("resume", "training_completions").stderr
    assert cli("throttle", "training_completions").returncode == 2


def test_a_run_that_changed_nothing_is_undone_by_doing_nothing(cli: Cli, conn: psycopg.Connection) -> None:
    conn.execute(
        "insert into backfill.runs (run_id, root_run_id, assets, partitions) values ('fade', 'fade', '{}', 0)"
    )
    dry = cli("undo", "fade")
    assert dry.returncode == 0 and dry.stderr.endswith("Nothing to do.\n"), dry.stderr
