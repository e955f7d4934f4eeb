"""The verbs on `progress_stats`, `failures` and `list` on a terminal."""

import json

import psycopg
import pytest

from dagster_backfills_tests.cli.conftest import Cli

pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture
def school(conn: psycopg.Connection) -> psycopg.Connection:
    """Four cohorts with three students each, one of whom has answered one of two questions. No statistics yet."""
    conn.execute("set session_replication_role = replica")
    conn.execute("insert into progress.schools values ('s', 'École'), ('t', 'Other')")
    conn.execute(
        "insert into progress.cohorts select 'c' || i, case when i = 4 then 't' else 's' end, 'Cohort ' || i,"
        " timestamptz '2026-01-01' + i * interval '1 day' from generate_series(1, 4) as i"
    )
    conn.execute("insert into progress.classes select 'k' || i, 'c' || i from generate_series(1, 4) as i")
    conn.execute("insert into progress.modules select 'm' || i, 'k' || i from generate_series(1, 4) as i")
    conn.execute(
        "insert into progress.questions select 'q' || i || j, 'm' || i from generate_series(1, 4) as i, "
        "generate_series(1, 2) as j"
    )
    conn.execute(
        "insert into progress.users select 'u' || i || j, 'c' || i, 'U', 'u@example.org'"
        " from generate_series(1, 4) as i, generate_series(1, 3) as j"
    )
    conn.execute(
        "insert into progress.user_progress (user_id, question_id, class_id, selected_options)"
        " select 'u' || i || '1', 'q' || i || '1', 'k' || i, '{a}' from generate_series(1, 4) as i"
    )
    conn.execute("set session_replication_role = origin")
    return conn


def test_status_shows_what_is_missing_by_name_and_what_is_next(cli: Cli, school: psycopg.Connection) -> None:
    listed = cli("status", "progress_stats")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.splitlines()[0].split("\t") == [
        "partition", "name", "state", "school", "has stats", "students", "with stats", "classes"
    ]  # fmt: skip
    assert [line.split("\t") for line in listed.stdout.splitlines()[1:]] == [
        ["c4", "Cohort 4", "missing", "Other", "no", "3", "0", "1"],
        ["c3", "Cohort 3", "missing", "École", "no", "3", "0", "1"],
        ["c2", "Cohort 2", "missing", "École", "no", "3", "0", "1"],
        ["c1", "Cohort 1", "missing", "École", "no", "3", "0", "1"],
    ]
    assert "Next: c1 (Cohort 1)" in listed.stderr
    found = json.loads(cli("status", "progress_stats", "HORT 3", "--json").stdout)
    assert [(each["partition"], each["name"]) for each in found] == [("c3", "Cohort 3")]
    assert len(json.loads(cli("status", "progress", "ÉCOLE", "--needs-backfill", "--json").stdout)) == 3
    backfills = {each["backfill"]: each for each in json.loads(cli("list", "--json").stdout)}
    assert set(backfills) == {"progress_stats", "training_completions", "scoring", "kintell", "queue"}
    assert (backfills["progress_stats"]["units"], backfills["progress_stats"]["missing"]) == (4, 4)
    assert json.loads(cli("status", "--json").stdout)["backfills"] == list(backfills.values())


def test_run_asks_for_confirmation_and_does_nothing_without_a_terminal(
    cli: Cli, school: psycopg.Connection
) -> None:
    done = cli("run", "progress_stats")
    assert done.returncode == 2
    assert "Write 4 partitions of progress_stats?" in done.stderr
    assert "--yes" in done.stderr
    assert school.execute("select count(*) from progress.cohort_stats").fetchone() == (0,)


def test_an_unknown_cohort_and_conflicting_options_are_rejected(cli: Cli, school: psycopg.Connection) -> None:
    unknown = cli("run", "progress_stats", "-p", "c9", "--yes")
    assert unknown.returncode == 2
    assert "'c9'" in unknown.stderr
    assert "Traceback" not in unknown.stderr
    both = cli("run", "progress_stats", "-p", "c1", "--which", "missing", "--yes")
    assert both.returncode == 2
    assert "can't be used together" in both.stderr


@pytest.mark.e2e
def test_backfill_everything_computes_all_and_a_retry_fixes_a_failed_one(
    cli: Cli, school: psycopg.Connection
) -> None:
    school.execute("alter table progress.cohort_stats add constraint refused check (cohort_id <> 'c2')")
    first = cli("run", "progress_stats", "--yes", "--json")
    assert first.returncode == 1, first.stderr
    done = json.loads(first.stdout)
    assert (done["partitions"], [failure["partition"] for failure in done["failures"]]) == (4, ["c2"])
    assert school.execute(
        "select cohort_id, total_students, average_completion from progress.cohort_stats order by 1"
    ).fetchall() == [("c1", 3, 17), ("c3", 3, 17), ("c4", 3, 17)]
    (failure,) = json.loads(cli("failures", "progress_stats", "--json").stdout)
    assert (failure["asset"], failure["partition"], failure["unit"]) == ("progress/cohort_stats", "c2", None)
    assert "refused" in failure["message"]
    listed = cli("failures")
    assert "refused" in listed.stdout

    school.execute("alter table progress.cohort_stats drop constraint refused")
    retried = cli("run", "progress_stats", "--which", "failed", "--yes")
    assert retried.returncode == 0, retried.stderr
    assert "After: progress_stats: 4 partitions, 0 need a backfill." in retried.stderr
    assert json.loads(cli("failures", "progress_stats", "--json").stdout) == []
    (entry,) = json.loads(cli("failures", "--all", "--json").stdout)
    assert entry["resolved_at"] is not None
    again = cli("run", "progress_stats", "--yes")
    assert again.returncode == 0
    assert "Nothing to do" in again.stderr


@pytest.mark.e2e
def test_limit_1_runs_only_the_next_partition_missing_before_stale(
    cli: Cli, school: psycopg.Connection
) -> None:
    assert cli("run", "progress_stats", "-p", "c1", "-p", "Cohort 2", "-p", "c4", "--yes").returncode == 0
    school.execute("select backfill.mark_stale('progress/cohort_stats', '{c2}')")
    for cohort in ("c3", "c2"):
        assert f"Next: {cohort} " in cli("status", "progress_stats").stderr
        assert cli("run", "progress_stats", "--limit", "1", "--yes").returncode == 0
    assert json.loads(cli("status", "progress_stats", "--needs-backfill", "--json").stdout) == []


def test_a_database_without_migrations_says_which_and_what_to_do(cli: Cli, make_database) -> None:
    for command in (
        ["status", "progress_stats"],
        ["failures"],
        ["status"],
        ["run", "progress_stats", "--yes"],
    ):
        done = cli(*command, env={"DATABASE_URL": make_database(migrated=False)})
        assert done.returncode == 3, command
        assert "backfills migrate" in done.stderr
        assert "Traceback" not in done.stderr
