"""The progress domain through the UI's GraphQL, sensors, and Dagster's command line."""

import os
import sys
from pathlib import Path

import psycopg
import pytest

from benchmarks.backfills import Backfills
from dagster_backfills_tests.e2e.conftest import Stack
from dagster_backfills_tests.e2e.graphql import (
    LOCATION,
    check_results,
    finished_backfill,
    partition_keys,
    partition_states,
    runs,
    start_sensor,
    wait_for,
)
from dagster_backfills_tests.programs import run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ASSETS = ["progress/user_progress_stats", "progress/cohort_stats"]
ODD = ["with, comma", 'it\'s "quoted"', "100%/é中文", "sp ace", "x" * 500]
PLAIN = [f"cohort-{number:02}" for number in range(8)]
COHORTS = PLAIN + ODD
BAD = [PLAIN[4], ODD[1]]


@pytest.fixture(scope="module")
def school(stack: Stack) -> Stack:
    """Insert cohorts of three students each. Each student has answered one of two questions."""
    with stack.connect() as conn:
        conn.execute("insert into progress.schools values ('s', 'School')")
        for cohort in COHORTS:
            _add_cohort(conn, cohort)
    return stack


def _add_cohort(conn: psycopg.Connection, cohort: str) -> None:
    conn.execute(
        "insert into progress.cohorts (id, school_id, name) values (%s, 's', %s)", [cohort, cohort[:20]]
    )
    conn.execute("insert into progress.classes values (%s, %s)", [f"k {cohort}", cohort])
    conn.execute("insert into progress.modules values (%s, %s)", [f"m {cohort}", f"k {cohort}"])
    for number in range(2):
        conn.execute("insert into progress.questions values (%s, %s)", [f"q{number} {cohort}", f"m {cohort}"])
    for number in range(3):
        user = f"u{number} {cohort}"
        conn.execute(
            "insert into progress.users (id, cohort_id, name, email) values (%s, %s, 'U', 'u@example.org')",
            [user, cohort],
        )
        conn.execute(
            "insert into progress.user_progress (user_id, question_id, class_id, selected_options)"
            " values (%s, %s, %s, '{a}')",
            [user, f"q0 {cohort}", f"k {cohort}"],
        )


def _averages(stack: Stack) -> dict[str, int]:
    with stack.connect() as conn:
        return dict(
            conn.execute("select cohort_id, average_completion from progress.cohort_stats").fetchall()
        )


def test_new_cohorts_become_partitions_and_are_computed_automatically(school: Stack) -> None:
    web = school.webserver
    wait_for("the partitions", lambda: partition_keys(web, ASSETS[0]) == set(COHORTS))
    wait_for("the statistics", lambda: _averages(school) == dict.fromkeys(COHORTS, 50))
    for asset in ASSETS:
        wait_for(asset, lambda asset=asset: partition_states(web, asset)["materialized"] == set(COHORTS))
    with school.connect() as conn:
        assert conn.execute("select count(*) from backfill.stale").fetchone() == (0,)
    assert {run["jobName"] for run in runs(web)} >= {"refresh_progress_stats"}


def test_only_the_failed_partitions_are_failed_and_only_they_are_retried(school: Stack) -> None:
    web, ui = school.webserver, Backfills(school.webserver)
    ui.stop_sensor("progress_stats_refresh")  # otherwise automation would compute it first
    with school.connect() as conn:
        conn.execute(
            "create function public.refuse() returns trigger language plpgsql as $$ begin"
            " if new.cohort_id in (select cohort_id from public.refused) then"
            " raise exception 'this cohort is refused'; end if; return new; end $$"
        )
        conn.execute("create table public.refused as select unnest(%s::text[]) as cohort_id", [BAD])
        conn.execute(
            "create trigger refuse before insert or update on progress.cohort_stats"
            " for each row execute function public.refuse()"
        )
        conn.execute("delete from progress.cohort_stats")
    backfill = ui.launch(ASSETS, COHORTS)
    status = wait_for("the backfill", lambda: finished_backfill(web, backfill), timeout=240)
    assert status == "COMPLETED_FAILED"
    total = len(COHORTS)
    assert ui.status(backfill)["assets"] == {ASSETS[0]: (total, total, 0), ASSETS[1]: (total, total - 2, 2)}
    assert [run["status"] for run in ui.runs_of(backfill)] == ["FAILURE"]
    assert _averages(school) == dict.fromkeys(set(COHORTS) - set(BAD), 50)
    # The students' rows were correct before, and still are.
    for asset, failed in zip(ASSETS, [set(), set(BAD)], strict=True):
        states = partition_states(web, asset)
        assert states["failed"] == failed
        assert states["materialized"] == set(COHORTS) - failed
        assert not states["materializing"]
    with school.connect() as conn:
        entry = conn.execute(
            "select asset, partition, unit, message from backfill.failures where resolved_at is null"
        )
        assert sorted(entry.fetchall()) == [
            ("progress/cohort_stats", bad, None, "this cohort is refused") for bad in sorted(BAD)
        ]
    named = ui.launch_job("refresh_progress_stats", LOCATION, {"which": "named", "partitions": COHORTS[::4]})
    wait_for("a run over some, of which one fails again", lambda: ui.run(named)["endTime"])
    assert ui.run(named)["status"] == "FAILURE"
    assert partition_states(web, ASSETS[1])["failed"] == set(BAD)

    with school.connect() as conn:
        conn.execute("drop trigger refuse on progress.cohort_stats")
    retry = ui.retry_failed(backfill)
    assert wait_for("the retry", lambda: finished_backfill(web, retry), timeout=240) == "COMPLETED_SUCCESS"
    assert ui.status(retry)["assets"] == {ASSETS[1]: (2, 2, 0)}
    retried = [run["tags"]["dagster/asset_partition_range_start"] for run in ui.runs_of(retry)]
    assert sorted(retried) == sorted(BAD)
    assert _averages(school) == dict.fromkeys(COHORTS, 50)
    assert partition_states(web, ASSETS[1])["failed"] == set()
    with school.connect() as conn:
        resolved = conn.execute("select count(*) from backfill.failures where resolved_at is null").fetchone()
        assert resolved == (0,)
    start_sensor(web, "progress_stats_refresh")


def test_saved_progress_updates_the_cohort_automatically_and_the_checks_pass(school: Stack) -> None:
    web, cohort = school.webserver, PLAIN[3]
    with school.connect() as conn:
        for number in range(3):
            conn.execute(
                "insert into progress.user_progress (user_id, question_id, class_id, selected_options)"
                " values (%s, %s, %s, '{b}')",
                [f"u{number} {cohort}", f"q1 {cohort}", f"k {cohort}"],
            )
        own = conn.execute(
            "select questions_interacted from progress.user_progress_stats where cohort_id = %s", [cohort]
        ).fetchall()
        assert own == [(2,)] * 3
    wait_for("the cohort's average", lambda: _averages(school)[cohort] == 100)
    wait_for(
        "the checks",
        lambda: all(check_results(web, ASSETS[0]).values()) and all(check_results(web, ASSETS[1]).values()),
    )


def _dagster(stack: Stack, project_root: Path, program: str, *arguments: str) -> None:
    """Run one of Dagster's programs to its successful end."""
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    done = run(command, env={**os.environ, **stack.environment}, cwd=project_root, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_partition_and_a_range_materialize_from_dagsters_command_line(
    school: Stack, project_root: Path
) -> None:
    wait_for("the partitions", lambda: set(COHORTS) <= partition_keys(school.webserver, ASSETS[0]))
    with school.connect() as conn:
        conn.execute("delete from progress.cohort_stats")
    dagster = ("dagster", "asset", "materialize", "-m", LOCATION, "--select")
    _dagster(school, project_root, *dagster, ASSETS[1], "--partition", ODD[0])
    several = ("--partition-range", f"{PLAIN[1]}...{PLAIN[3]}")
    _dagster(school, project_root, *dagster, ",".join(ASSETS), *several)
    _dagster(school, project_root, "dg", "launch", "--assets", ASSETS[1], "--partition", PLAIN[5])
    assert {ODD[0], *PLAIN[1:4], PLAIN[5]} <= set(_averages(school))
