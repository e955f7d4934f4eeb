"""`backfills progress`, `failures` and `status`, as their users type them."""

import json

import psycopg
import pytest

from dagster_backfills_tests.cli.conftest import Cli

pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture
def school(conn: psycopg.Connection) -> psycopg.Connection:
    """Four cohorts with three students each, one of whom has answered one of two questions; no statistics yet."""
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


def test_status_find_and_next_show_what_is_missing_by_name(cli: Cli, school: psycopg.Connection) -> None:
    listed = cli("progress", "status")
    assert listed.returncode == 0, listed.stderr
    assert [line.split("\t")[:4] for line in listed.stdout.splitlines()[1:]] == [
        ["Other", "Cohort 4", "c4", "no"],
        ["École", "Cohort 1", "c1", "no"],
        ["École", "Cohort 2", "c2", "no"],
        ["École", "Cohort 3", "c3", "no"],
    ]
    found = json.loads(cli("progress", "find", "HORT 3", "--json").stdout)
    assert [cohort["cohort_id"] for cohort in found] == ["c3"]
    (following,) = json.loads(cli("progress", "next", "--json").stdout)
    assert (following["cohort_id"], following["students"], following["students_with_stats"]) == ("c1", 3, 0)
    domains = {each["domain"]: each for each in json.loads(cli("status", "--json").stdout)["domains"]}
    assert set(domains) == {"jobs", "kintell", "progress", "scoring", "training"}
    assert (domains["progress"]["units"], domains["progress"]["missing"]) == (4, 4)


def test_run_asks_first_and_without_anyone_to_ask_does_nothing(cli: Cli, school: psycopg.Connection) -> None:
    done = cli("progress", "run")
    assert done.returncode == 2
    assert "Compute the statistics of 4 cohorts?" in done.stderr
    assert "--yes" in done.stderr
    assert school.execute("select count(*) from progress.cohort_stats").fetchone() == (0,)


def test_an_unknown_cohort_and_contradicting_options_are_refused(
    cli: Cli, school: psycopg.Connection
) -> None:
    unknown = cli("progress", "run", "c9", "--yes")
    assert unknown.returncode == 2
    assert "'c9'" in unknown.stderr
    assert "Traceback" not in unknown.stderr
    both = cli("progress", "run", "--stale", "--missing", "--yes")
    assert both.returncode == 2
    assert "exclude each other" in both.stderr


def test_backfill_everything_computes_all_and_a_failing_one_is_mended_by_retry(
    cli: Cli, school: psycopg.Connection
) -> None:
    school.execute("alter table progress.cohort_stats add constraint refused check (cohort_id <> 'c2')")
    first = cli("progress", "run", "--yes", "--json")
    assert first.returncode == 1, first.stderr
    assert json.loads(first.stdout) == {"computed": 4, "cohorts": 4, "need_backfill": ["c2"]}
    assert school.execute(
        "select cohort_id, total_students, average_completion from progress.cohort_stats order by 1"
    ).fetchall() == [("c1", 3, 17), ("c3", 3, 17), ("c4", 3, 17)]
    (failure,) = json.loads(cli("failures", "list", "--json").stdout)
    assert (failure["asset"], failure["partition"], failure["unit"]) == ("progress/cohort_stats", "c2", None)
    assert "refused" in failure["message"]
    listed = cli("failures", "list")
    assert "refused" in listed.stdout

    school.execute("alter table progress.cohort_stats drop constraint refused")
    retried = cli("failures", "retry", "--yes")
    assert retried.returncode == 0, retried.stderr
    assert "All are mended." in retried.stderr
    assert json.loads(cli("failures", "list", "--json").stdout) == []
    (entry,) = json.loads(cli("failures", "list", "--all", "--json").stdout)
    assert entry["resolved_at"] is not None
    again = cli("progress", "run", "--yes")
    assert again.returncode == 0
    assert "Nothing to do" in again.stderr


def test_a_database_without_migrations_says_which_and_what_to_do(cli: Cli, make_database) -> None:
    for command in (["progress", "status"], ["failures", "list"], ["status"], ["progress", "run", "--yes"]):
        done = cli(*command, env={"DATABASE_URL": make_database(migrated=False)})
        assert done.returncode == 3, command
        assert "backfills migrate" in done.stderr
        assert "Traceback" not in done.stderr
