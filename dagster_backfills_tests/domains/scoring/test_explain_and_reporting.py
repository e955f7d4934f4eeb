"""Metadata and log lines of a day, the explanation of a member, and the settings."""

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from dagster_backfills.defs.scoring import assets
from dagster_backfills.defs.scoring.resources import scoring_settings
from dagster_backfills.domains.scoring.explain import explain
from dagster_backfills.domains.scoring.settings import setting_at_load, settings_from
from dagster_backfills.domains.scoring.status import chain_of
from dagster_backfills.domains.scoring.weights import Weights
from dagster_backfills.errors import UserError
from dagster_backfills.samples.scoring import DEMO, ScoringSize, load_demo, load_sample
from dagster_backfills_tests.domains.scoring.conftest import Gyms, Score, resources_of
from dagster_backfills_tests.domains.scoring.histories import DAY


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, object]:
    event = result.asset_materializations_for_node(f"scoring__{asset}")[-1]
    return {name: value.value for name, value in event.metadata.items()}


def test_metadata_has_each_days_numbers_and_names_the_current_values(
    gyms: Gyms, score: Score, capsys: pytest.CaptureFixture[str]
) -> None:
    gyms.member("regular", *range(0, 101, 2), coaches=("c1",))
    gyms.member("falling off", 16, 35, 42, 49, 56, coaches=("c1", "c2"))
    result = score()
    commitment = metadata(result, "commitment_scores")
    expected = {"members_scored": 2, "band_low": 1, "band_high": 1, "band_good": 0, "mean_score": 53.5}
    assert expected.items() <= commitment.items()
    assert {"failures": 0, "rows_inserted": 2, "dagster/partition_row_count": 2}.items() <= commitment.items()
    assert str(commitment["as_of"]).startswith(
        "2026-06-30. Visits are counted up to the day. Status, joining date and"
    )
    assert {"risk_none": 1, "risk_high": 1, "mean_score": 54.0}.items() <= metadata(
        result, "churn_risk_scores"
    ).items()
    actions = metadata(result, "coach_actions")
    assert {"actions": 2, "actions_contact_member": 2, "coaches_with_actions": 2}.items() <= actions.items()
    message = capsys.readouterr().err
    assert (
        "[JOB SUCCESS] scoring/commitment_scores 2026-06-30: 2 members processed, 2 updated, 0 errors"
        in message
    )
    assert "[JOB SUCCESS] scoring/coach_actions 2026-06-30: 2 coaches processed, 2 actions created" in message


def test_a_failed_job_says_so(gyms: Gyms, score: Score, capsys: pytest.CaptureFixture[str]) -> None:
    gyms.member("a", 1)
    gyms.conn.execute("alter table scoring.visits rename to elsewhere")
    assert not score(assets.commitment_scores).success
    assert "[JOB FAILURE] scoring/commitment_scores 2026-06-30:" in capsys.readouterr().err


def test_an_explanation_has_the_numbers_behind_each_factor(gyms: Gyms, score: Score) -> None:
    gyms.member("a", 16, 35, 42, 49, 56, coaches=("c1",))
    score(assets.commitment_scores)
    e = explain(gyms.conn, "a", DAY, Weights())
    assert [(f.name, f.value, f.weight) for f in e.factors] == [
        ("attendance_decay", 25, 0.35),
        ("missed_sessions", 13, 0.25),
        ("time_gaps", 20, 0.25),
        ("decline_velocity", 20, 0.15),
    ]
    assert e.factors[0].because == "1 visits in the last 30 days, 4 in the 30 days before"
    assert "3.8 expected (0.88 per week, the member's average), halved" in e.factors[1].because
    assert "average gap 10.0 days, largest gap 19, last visit 16 days ago" in e.factors[2].because
    assert (e.weighted_sum, e.time_decay, e.score, e.band, e.stored) == (20.0, 0.73, 15, "low", 15)
    assert e.flags == ["no_recent_visits", "rapid_decline", "declining_frequency"]
    assert (e.churn_level, e.churn_score, e.action, e.coaches) == ("high", 100, "contact_member", ["c1"])
    assert e.action_because == "rule 1 of 5 matches: high_risk,no_visit_in_14_days"


def test_an_explanation_of_a_day_without_visits_and_of_a_new_member(gyms: Gyms) -> None:
    gyms.member("never")
    gyms.member("new", 1, 3, 12, joined=20, per_week=2)
    never = explain(gyms.conn, "never", DAY, Weights())
    assert (never.score, never.churn_score, never.stored) == (0, 85, None)
    assert {f.because for f in never.factors} == {"no visits"}
    new = explain(gyms.conn, "new", DAY, Weights())
    assert new.factors[0].because == "joined 20 days ago: 2 visits in the last 10 days, 1 before"
    assert "the member's own goal" in new.factors[1].because
    assert new.factors[3].because == "only 3 visits in total, too few for a trend"


def test_explaining_an_unknown_or_invalid_member_is_a_clear_error(gyms: Gyms) -> None:
    gyms.member("no goal", 1, per_week=-1)
    with pytest.raises(UserError, match="There is no member 'nobody'"):
        explain(gyms.conn, "nobody", DAY, Weights())
    with pytest.raises(UserError, match="expected_visits_per_week must be 0 or more, is -1"):
        explain(gyms.conn, "no goal", DAY, Weights())


def test_status_shows_each_day_with_its_links(gyms: Gyms, score: Score) -> None:
    gyms.member("a", 1)
    gyms.member("broken", 1, per_week=-1)
    score(assets.commitment_scores)
    newest, before = chain_of(gyms.conn, DAY, 2)
    assert [str(link) for link in newest.links] == ["partial: 1 of 2, 1 failed", "missing", "missing"]
    assert newest.remark == "1 of 2 members failed, more than 1 %"
    assert [link.outcome for link in before.links] == ["missing"] * 3


def test_the_overview_counts_days(gyms: Gyms, score: Score) -> None:
    query = "select of_what, units, up_to_date, missing, stale, failed from scoring.overview"
    assert gyms.rows(query) == [("days of the last week", 7, 0, 7, 0, 0)]
    gyms.member("a", 1)
    from datetime import UTC, datetime, timedelta

    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    score(day=yesterday)
    assert gyms.rows(query) == [("days of the last week", 7, 1, 6, 0, 0)]
    gyms.member("broken", 1, per_week=-1)
    score(day=yesterday, max_failed_percent=50)
    (newest,) = chain_of(gyms.conn, yesterday, 1)
    assert [link.outcome for link in newest.links] == ["complete"] * 3
    assert newest.failed == 1
    assert gyms.rows(query) == [("days of the last week", 7, 0, 6, 0, 1)]


def test_sample_data_is_the_same_for_the_same_seed_and_loaded_once(conn: psycopg.Connection) -> None:
    assert load_demo(conn).startswith(f"Loaded {DEMO.members:,} members of ")
    assert load_demo(conn) == "The tables of the scoring domain have rows: no sample data was loaded."
    everything = "select md5(string_agg(v::text, ',' order by v::text)) from scoring.visits as v"
    digests = []
    for _ in range(2):
        conn.execute("truncate scoring.gyms cascade")
        load_sample(conn, date(2026, 6, 30), ScoringSize(members=50))
        digests.append(conn.execute(everything).fetchone())
    assert digests[0] == digests[1]


WRONG = {"SCORING_WEIGHTS": "1,2", "SCORING_MAX_RUNTIME_SECONDS": "soon", "SCORING_FIRST_DAY": "2024-02-30"}


@pytest.mark.programs
def test_invalid_settings_do_not_prevent_definitions_from_loading(project_root: Path) -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "from dagster_backfills.definitions import defs; defs().get_repository_def()"],
        cwd=project_root, env={**os.environ, **WRONG}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert loaded.returncode == 0, loaded.stderr


@pytest.mark.parametrize("name", WRONG)
def test_a_run_names_an_invalid_setting(
    database_url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, WRONG[name])
    with pytest.raises(dg.DagsterResourceFunctionError) as raised:
        dg.materialize(
            [assets.commitment_scores],
            partition_key="2026-06-30",
            resources={**resources_of(database_url), "scoring_settings": scoring_settings},
        )
    assert f"{name} is '{WRONG[name]}': " in str(raised.value.__cause__)


def test_a_setting_needed_at_load_falls_back_to_its_default_if_invalid() -> None:
    environment = WRONG | {"SCORING_MAX_RUNTIME_SECONDS": "60"}
    assert setting_at_load("max_runtime_seconds", environment) == 60
    assert setting_at_load("max_runtime_seconds", WRONG) == 600
    assert setting_at_load("first_day", WRONG) == date(2020, 1, 1)


def test_settings_come_from_the_environment_and_wrong_ones_are_named() -> None:
    settings = settings_from({"SCORING_BATCH_MEMBERS": "50", "SCORING_WEIGHTS": "0.4,0.2,0.2,0.2"})
    assert settings.engine().batch_units == 50
    assert settings.parsed_weights.version == "40-20-20-20"
    for environment, words in [
        ({"SCORING_WEIGHTS": "0.4,0.2,0.2,0.1"}, "SCORING_WEIGHTS is .*sum to 1"),
        ({"SCORING_BATCH_MEMBERS": "many"}, "SCORING_BATCH_MEMBERS is 'many': .*valid integer"),
        ({"SCORING_BATCH_SECONDS": "inf"}, "SCORING_BATCH_SECONDS is .*finite number"),
        ({"SCORING_FIRST_DAY": "yesterday"}, "SCORING_FIRST_DAY is .*valid date"),
        ({"SCORING_CATCH_UP_DAYS": "0"}, "SCORING_CATCH_UP_DAYS is .*greater than or equal to 1"),
    ]:
        with pytest.raises(UserError, match=words):
            settings_from(environment)
