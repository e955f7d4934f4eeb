"""`backfills cancel` and `backfills audit`, as their users type them."""

import json
import os
import subprocess

import dagster as dg
import psycopg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from dagster_backfills.identity import system_user
from dagster_backfills.instance.dagster_home import dagster_environment
from dagster_backfills.instance.launching import CODE_LOCATION, create_run
from dagster_backfills_tests.cli.conftest import SCRIPT, Cli, eventually
from dagster_backfills_tests.programs import start_reading

pytestmark = [pytest.mark.timeout(900)]
RECORDS = "select count(*) from training.employee_training_video_completions"


@pytest.fixture
def school(conn: psycopg.Connection) -> psycopg.Connection:
    conn.execute("insert into training.training_videos values ('sat-1', 'One', 1)")
    conn.execute("insert into training.organizations values ('org_a', 'A', '2024-01-01')")
    conn.execute("insert into training.members (id, organization_id, user_email) values ('a1', 'org_a', 'x')")
    return conn


@pytest.mark.e2e
def test_a_running_run_is_cancelled_and_the_audit_lists_each_request_with_its_outcome(
    cli: Cli, school: psycopg.Connection, database_url: str
) -> None:
    assert cli("audit").stderr == "No requests have been recorded.\n"
    assert cli("pause", "training_completions").returncode == 0
    command = [SCRIPT, "run", "training_completions", "--yes"]
    env = os.environ | {"DATABASE_URL": database_url}
    run = start_reading(command, env=env)
    eventually(lambda: school.execute("select from backfill.runs").fetchone() is not None)
    refused = cli("cancel", "training_completions")
    assert refused.returncode == 2 and "Add --yes" in refused.stderr
    assert "progress_stats has no queued or running runs." in cli("cancel", "progress_stats", "--yes").stderr
    answer = json.loads(cli("cancel", "training_completions", "--yes", "--json").stdout)
    run.communicate()
    [(run_id, started_by, outcome)] = school.execute(
        "select run_id, started_by, outcome from backfill.runs"
    ).fetchall()
    assert answer == {"backfills": [], "runs": [run_id]}
    assert (run.returncode, outcome, started_by) == (130, "interrupted", system_user())
    assert school.execute(RECORDS).fetchone() == (0,)

    listed = json.loads(cli("audit", "--json").stdout)
    assert [(e["who"], e["action"], e["target"], e["runs"], e["outcome"], e["detail"]) for e in listed] == [
        (system_user(), "cancel", "training_completions", [run_id], "done", ""),
        (
            system_user(), "launch", "refresh_training_completions", [run_id],
            "failed", "The run ended with status CANCELED.",
        ),
        (system_user(), "control", "training_completions", [], "done", "paused = True"),
    ]  # fmt: skip
    assert "cancel\ttraining_completions\tdone" in cli("audit", "--limit", "2").stdout
    on_a_terminal = subprocess.run(
        ["script", "-qec", f"{SCRIPT} audit --limit 1", "/dev/null"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert on_a_terminal[-3].endswith(f"  {system_user()}  cancel: done")
    assert on_a_terminal[-2:] == ["    training_completions", f"    runs {run_id}"]
    assert cli("audit", "--who", "somebody").stderr == "No requests by somebody have been recorded.\n"


def test_queued_runs_and_dagster_backfills_are_cancelled_and_other_backfills_continue(
    cli: Cli, school: psycopg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    for name, value in dagster_environment().items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as instance:
        ours, others = (
            create_run(instance, CODE_LOCATION, f"refresh_{name}", {}, {})
            for name in ("training_completions", "progress_stats")
        )
        for backfill_id, asset in [
            ("ours", ["training", "organization_training_progress"]),
            ("others", ["progress", "cohort_stats"]),
        ]:
            instance.add_backfill(
                PartitionBackfill(
                    backfill_id,
                    BulkActionStatus.REQUESTED,
                    False,
                    {},
                    0.0,
                    asset_selection=[dg.AssetKey(asset)],
                )
            )
        answer = json.loads(cli("cancel", "training_completions", "--yes", "--json").stdout)
        assert answer == {"backfills": ["ours"], "runs": [ours.run_id]}
        statuses = {run.run_id: run.status.value for run in instance.get_runs()}
        assert statuses == {ours.run_id: "CANCELING", others.run_id: "NOT_STARTED"}
        backfills = {each.backfill_id: each.status.name for each in instance.get_backfills()}
        assert backfills == {"ours": "CANCELING", "others": "REQUESTED"}
