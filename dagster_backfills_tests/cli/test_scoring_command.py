"""The verbs on scoring on a terminal: days are run, explained and shown."""

import json
import subprocess
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dagster_backfills.cli.app import found_at
from dagster_backfills.cli.scoring import commands
from dagster_backfills.cli.scoring.days import date_ranges
from dagster_backfills.errors import UserError
from dagster_backfills_tests.domains.scoring.conftest import Gyms
from dagster_backfills_tests.programs import ForkingPopen

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


@pytest.fixture(autouse=True)
def instance_home(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dagster.yaml").write_text("")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setattr(subprocess, "Popen", ForkingPopen)


@pytest.fixture
def gyms(conn) -> Gyms:  # type: ignore[no-untyped-def]
    return Gyms(conn)


VERBS = {"run": "run:run_", "plan": "plan:plan", "explain": "explain:explain_", "status": "status:status"}


def call(verb: str, *arguments: str):  # type: ignore[no-untyped-def]
    if verb in VERBS:
        return CliRunner().invoke(found_at(VERBS[verb]), ["scoring", *arguments])
    return CliRunner().invoke(commands.app, [verb, *arguments])


@pytest.mark.programs
def test_a_day_is_run_explained_and_shown(gyms: Gyms) -> None:
    gyms.member("a", 16, 35, 42, 49, 56, coaches=("c1",), day=YESTERDAY)
    gyms.member("b", 1, 3, 5, day=YESTERDAY)
    ran = call("run", "-p", YESTERDAY.isoformat(), "--yes", "--json")
    assert ran.exit_code == 0, ran.output
    done = json.loads(ran.stdout)
    assert (len(done["runs"]), [table["inserted"] for table in done["tables"]]) == (1, [2, 2, 1])
    explained = json.loads(call("explain", "a", "--json").stdout)
    assert (explained["score"], explained["stored"], explained["action"]) == (15, 15, "contact_member")
    shown = call("explain", "a").stdout
    assert "25\t35.00%\t1 visits in the last 30 days, 4 in the 30 days before" in shown
    assert "commitment score\t15 (low); stored: 15" in shown
    lines = call("status", "--limit", "2").stdout.splitlines()
    assert lines[0] == "partition\tstate\tcommitment scores\tchurn risk scores\tcoach actions\tremark"
    assert lines[1].startswith(
        f"{YESTERDAY}\tup to date\tcomplete: 2 of 2\tcomplete: 2 of 2\tcomplete: 1 of 1"
    )
    assert lines[2].startswith(f"{YESTERDAY - timedelta(days=1)}\tmissing\tmissing\tmissing\tmissing")
    gyms.visit("a", 0, YESTERDAY)
    gym = gyms.rows("select id from scoring.gyms")[0][0]
    planned = json.loads(call("gym", gym, "--plan", "--json").stdout)
    assert [total["updated"] for total in planned["total"].values()] == [1, 1, 1]
    alone = call("gym", gym, "--json")
    assert alone.exit_code == 0, alone.output


@pytest.mark.programs
def test_the_plan_of_days_equals_their_run(gyms: Gyms) -> None:
    gyms.member("a", 16, 35, 42, 49, 56, coaches=("c1",), day=YESTERDAY)
    gyms.member("bad", 3, day=YESTERDAY, per_week=-1)
    days = [f"{YESTERDAY - timedelta(days=n)}" for n in (1, 0)]
    chosen = [word for day in days for word in ("-p", day)]
    planned = call("plan", *chosen, "--fail-on-changes", "--json")
    assert planned.exit_code == 1, planned.output
    report = json.loads(planned.stdout)
    assert [total["inserted"] for total in report["total"].values()] == [2, 2, 2]
    assert [(f["partition"], f["unit"]) for f in report["failures"]] == [(day, "bad") for day in days]
    shown = call("plan", *chosen).stdout
    assert f"scoring/coach_actions\t{days[0]}\t1\t0\t0\t0\t0" in shown
    assert "expected_visits_per_week must be 0 or more, is -1." in shown
    assert gyms.rows("select count(*) from scoring.chain_days") == [(0,)]
    gyms.conn.execute("delete from scoring.members where id = 'bad'")
    assert call("run", *chosen, "--yes").exit_code == 0
    assert call("plan", *chosen, "--fail-on-changes").exit_code == 0
    assert len(json.loads(call("plan", "--json").stdout)["partitions"]["scoring/commitment_scores"]) == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "-p", "tomorrow"], "'tomorrow' is not a day"),
        (["plan", "-p", "1999-12-31"], "can't be scored"),
        (["run", "-p", "tomorrow"], "'tomorrow' is not a day"),
        (
            ["run", "-p", str(YESTERDAY + timedelta(days=1))],
            "can't be scored: the days are ",
        ),
        (["run", "-p", "1999-12-31"], "can't be scored"),
        (["gym", "nowhere"], "There is no gym 'nowhere'"),
        (["explain", "nobody"], "There is no member 'nobody'"),
    ],
)
def test_invalid_requests_are_rejected_with_a_message(arguments: list[str], words: str) -> None:
    result = call(*arguments)
    assert isinstance(result.exception, UserError)
    assert words in str(result.exception)


@pytest.mark.programs
def test_failed_members_are_scored_again_day_by_day(gyms: Gyms) -> None:
    days = [YESTERDAY - timedelta(days=n) for n in (1, 0)]
    gyms.member("a", 16, 35, 42, 49, 56, coaches=("c1",), day=YESTERDAY)
    gyms.member("bad", 3, day=YESTERDAY, per_week=-1)
    assert call("run", *(word for day in days for word in ("-p", day.isoformat())), "--yes").exit_code == 1
    gyms.conn.execute("update scoring.members set expected_visits_per_week = 1")
    retried = call("run", "--which", "failed", "--yes")
    assert retried.exit_code == 0, retried.output
    assert gyms.rows("select count(*) from backfill.failures where resolved_at is null") == [(0,)]
    assert gyms.rows("select day, asset, outcome from scoring.chain_days order by 1, 2") == [
        (day, f"scoring/{table}", "complete")
        for day in days
        for table in ("churn_risk_scores", "coach_actions", "commitment_scores")
    ]


def test_days_are_retried_in_date_ranges() -> None:
    def day(n: int) -> date:
        return date(2026, 2, 27) + timedelta(days=n)

    assert date_ranges([day(5), day(0), day(1), day(2)]) == [(day(0), day(2)), (day(5), day(5))]
    assert date_ranges([]) == []
