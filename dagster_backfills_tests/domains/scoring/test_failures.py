"""Invalid members, killed runs and concurrent runs of a day: nothing is lost, and the failures are reported."""

import time
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from dagster_backfills.defs.scoring import assets
from dagster_backfills.domains.scoring.days import day_lock
from dagster_backfills_tests.domains.scoring.conftest import Gyms, Score, check_results, healthy, slow_run
from dagster_backfills_tests.domains.scoring.histories import DAY

LEDGER = (
    "select asset, partition, unit, message from backfill.failures where resolved_at is null order by unit"
)
STATE = "select outcome, reason, expected, done, failed from scoring.chain_days where asset = %s and day = %s"
BATCHES = "select count(distinct units_upto) from backfill.batches where asset = %s"


def test_a_broken_member_is_recorded_and_the_others_are_scored(gyms: Gyms, score: Score) -> None:
    healthy(gyms, 20)
    gyms.member("no goal", 1, per_week=-1)
    gyms.member("endless", 1)
    gyms.conn.execute("update scoring.members set joined_date = 'infinity' where id = 'endless'")
    result = score(max_failed_percent=10, batch_members=8)
    assert result.success
    assert gyms.rows("select count(*) from scoring.commitment_scores") == [(20,)]
    day = DAY.isoformat()
    assert gyms.rows(LEDGER) == [
        ("scoring/commitment_scores", day, "endless", "cannot subtract infinite dates"),
        (
            "scoring/commitment_scores",
            day,
            "no goal",
            "Member 'no goal' can't be scored: expected_visits_per_week must be 0 or more, is -1.",
        ),
    ]
    assert gyms.rows(STATE, "scoring/commitment_scores", DAY) == [("complete", None, 22, 20, 2)]
    covered = check_results(result)["commitment_scores.every_active_member_has_a_score"]
    assert not covered.passed
    assert covered.severity == dg.AssetCheckSeverity.WARN
    assert "2 of 22 active members have no row, 2 of them failed" in (covered.description or "")


def test_too_many_failures_make_the_day_partial_and_a_repair_makes_it_complete(
    gyms: Gyms, score: Score
) -> None:
    healthy(gyms, 3)
    gyms.member("no goal", 1, per_week=-2)
    score(assets.commitment_scores)
    assert gyms.rows(STATE, "scoring/commitment_scores", DAY) == [
        ("partial", "1 of 4 members failed, more than 1 %", 4, 3, 1)
    ]
    gyms.conn.execute("update scoring.members set expected_visits_per_week = 2 where id = 'no goal'")
    score(assets.commitment_scores)
    assert gyms.rows(STATE, "scoring/commitment_scores", DAY) == [("complete", None, 4, 4, 0)]
    assert gyms.rows(LEDGER) == []


@pytest.mark.parametrize("batch_members", [1, 50])
def test_a_run_for_one_gym_leaves_the_failures_of_the_others_open(
    gyms: Gyms, score: Score, batch_members: int
) -> None:
    for gym in ("g1", "g2"):
        gyms.member(f"bad of {gym}", 1, per_week=-1, gym=gym)
        gyms.member(f"good of {gym}", 1, gym=gym)
    score(assets.commitment_scores, max_failed_percent=100)
    assert [row[2] for row in gyms.rows(LEDGER)] == ["bad of g1", "bad of g2"]
    gyms.conn.execute("update scoring.members set expected_visits_per_week = 1")
    score(assets.commitment_scores, gym="g2", max_failed_percent=100, batch_members=batch_members)
    assert [row[2] for row in gyms.rows(LEDGER)] == ["bad of g1"]


def test_a_missing_table_fails_the_run_and_the_day_says_why(gyms: Gyms, score: Score) -> None:
    healthy(gyms, 2)
    gyms.conn.execute("alter table scoring.churn_risk_scores rename to elsewhere")
    result = score(assets.commitment_scores, assets.churn_risk_scores)
    assert not result.success
    outcome, reason, *_ = gyms.rows(STATE, "scoring/commitment_scores", DAY)[0]
    assert (outcome, reason) == ("complete", None)
    outcome, reason, *_ = gyms.rows(STATE, "scoring/churn_risk_scores", DAY)[0]
    assert outcome == "failed"
    assert "Table scoring.churn_risk_scores does not exist" in reason


@pytest.mark.parametrize("whose", ["pid = pg_backend_pid()", "application_name = 'dagster_backfills'"])
def test_a_lost_connection_is_retried(gyms: Gyms, score: Score, whose: str) -> None:
    """Terminate the writing connection, or all connections of the run, including the one with the day's lock."""
    healthy(gyms, 12)
    gyms.conn.execute("create sequence written")
    gyms.conn.execute(
        "create function cut() returns trigger language plpgsql as $$ begin if nextval('written') = 5 then"
        f" perform pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and {whose};"
        " end if; return new; end $$"
    )
    gyms.conn.execute(
        "create trigger cut before insert on scoring.commitment_scores for each row execute function cut()"
    )
    assert score(batch_members=3, max_batch_members=3).success
    assert gyms.rows("select last_value from written")[0][0] > 12
    for table, coaches in (("commitment_scores", 12), ("churn_risk_scores", 12), ("coach_actions", 1)):
        assert gyms.rows(STATE, f"scoring/{table}", DAY) == [("complete", None, coaches, coaches, 0)]
    assert gyms.rows("select count(*) from scoring.coach_actions") == [(12,)]


def test_a_second_run_for_a_day_waits_for_the_first(database_url: str) -> None:
    lines: list[str] = []
    with psycopg.connect(database_url) as first, psycopg.connect(database_url) as second:
        holding = day_lock(first, "scoring/coach_actions", "2026-06-30", lines.append)
        holding.__enter__()

        def release(line: str) -> None:
            lines.append(line)
            holding.__exit__(None, None, None)

        with day_lock(second, "scoring/coach_actions", "2026-06-30", release):
            pass
        assert lines == [
            "scoring/coach_actions 2026-06-30: another run is processing this day; waiting for it to finish."
        ]


@pytest.mark.programs
def test_two_concurrent_runs_for_one_day_write_one_set_of_rows(
    gyms: Gyms, score: Score, database_url: str, project_root: Path
) -> None:
    healthy(gyms, 10)
    score(assets.commitment_scores, assets.churn_risk_scores)
    with slow_run(database_url, "coach_actions", project_root) as other:
        while gyms.rows(BATCHES, "scoring/coach_actions")[0][0] < 2:
            assert other.poll() is None
            time.sleep(0.05)
        assert score(assets.coach_actions).success
        assert other.wait() == 0
    assert gyms.rows("select count(*), count(distinct member_id) from scoring.coach_actions") == [(10, 10)]
    runs = gyms.rows(
        "select started_at, finished_at from backfill.runs where 'scoring/coach_actions' = any(assets)"
        " order by started_at"
    )
    assert len(runs) == 2
    assert runs[0][1] <= runs[1][0]


def test_a_shifted_distribution_is_a_warning(gyms: Gyms, score: Score) -> None:
    for n in range(5):
        gyms.member(f"m{n}", *range(20, 120, 2))
    score(assets.commitment_scores, day=DAY.replace(day=12))
    steady = check_results(score(assets.commitment_scores))["commitment_scores.distribution_is_steady"]
    assert not steady.passed
    assert steady.severity == dg.AssetCheckSeverity.WARN
    assert "points compared with 2026-06-12 for the same members" in (steady.description or "")


def test_checks_detect_rows_that_violate_the_rules(gyms: Gyms, score: Score) -> None:
    healthy(gyms, 2)
    score()
    gyms.conn.execute("update scoring.commitment_scores set score = 99 where member_id = 'm000'")
    results = check_results(score(assets.churn_risk_scores, assets.coach_actions))
    assert all(result.passed for name, result in results.items() if "in_range" in name)
    from dagster_backfills.defs.scoring.checks import _count_is_zero
    from dagster_backfills.domains.scoring.settings import ScoringSettings

    found = _count_is_zero("commitment_out_of_range", "rows")(gyms.conn, DAY.isoformat(), ScoringSettings())
    assert found is not None
    assert found.message == "1 rows"


def test_a_day_with_many_new_rows_is_analyzed(
    gyms: Gyms, score: Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagster_backfills.domains.scoring.day_record._ANALYZE_ROWS", 3)
    healthy(gyms, 3)
    score(assets.commitment_scores)
    known = gyms.rows(
        "select attname from pg_stats where schemaname = 'scoring' and tablename = 'commitment_scores'"
    )
    assert {name for (name,) in known} == {"day", "member_id"}
