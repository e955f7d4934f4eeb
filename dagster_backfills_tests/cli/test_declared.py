"""`backfills new`, `check` and `triggers`, and the verbs of every backfill, called in an adopter's project."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import yaml

from dagster_backfills.cli.errors import OK, USAGE
from dagster_backfills.dagster.project import OURS
from dagster_backfills_tests.components.adopting import adopter, catalog, copied, load
from dagster_backfills_tests.components.applications import COMPLIANCE, GYM, MONTHS
from dagster_backfills_tests.programs import SCRIPT
from dagster_backfills_tests.programs import run as program
from dagster_backfills_tests.terminal import on_a_terminal

pytestmark = pytest.mark.programs

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An adopter's project; returns its folder of definitions."""
    (tmp_path / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "ours"\n')
    defs = tmp_path / "src" / "ours" / "defs"
    defs.mkdir(parents=True)
    return defs


@pytest.fixture
def run(project: Path, database_url: str) -> Run:
    environment = {"DATABASE_URL": database_url, "PATH": "", "HOME": str(project)}

    def call(*arguments: str, folder: Path = project) -> subprocess.CompletedProcess[str]:
        return program([SCRIPT, *arguments], cwd=folder, env=environment)

    return call


def test_a_draft_is_written_from_the_table_and_says_what_to_fill_in(
    run: Run, project: Path, conn: psycopg.Connection
) -> None:
    conn.execute(GYM + MONTHS)
    done = run(
        "new",
        "months",
        "--table",
        "attendance.member_months",
        "--partition-column",
        "gym_id",
        "--unit",
        "member_id",
    )
    assert done.returncode == OK, done.stderr
    queries = project / "months" / "queries.sql"
    assert f"{queries}, line 1: months_keys\n" in done.stderr
    assert f"{queries}, line 11: member_months\n" in done.stderr
    assert yaml.safe_load((project / "months" / "defs.yaml").read_text()) == {
        "type": "dagster_backfills.PostgresBackfill",
        "attributes": {
            "partitions": {"keys": "months_keys"},
            "tables": [
                {"table": "attendance.member_months", "unit": "member_id", "partition_column": "gym_id"}
            ],
        },
    }
    text = queries.read_text()
    assert "-- The key of a row is member_id, month." in text
    assert "    month,  -- date\n" in text and "any(:partition_keys::uuid[])" in text
    checked = run("check", "months")
    assert checked.returncode == USAGE
    assert (
        f'{queries}, line 11: The query of asset attendance/member_months is not valid: relation "fill_in"'
        in (checked.stderr)
    )
    assert run("new", "months", "--table", "attendance.member_months").returncode == USAGE


def test_a_draft_of_a_camel_case_table_quotes_what_needs_it(
    run: Run, project: Path, conn: psycopg.Connection
) -> None:
    conn.execute(COMPLIANCE)
    done = run("new", "completions", "--table", 'public."EmployeeTrainingVideoCompletion"')
    assert done.returncode == OK, done.stderr
    text = (project / "completions" / "queries.sql").read_text()
    assert '    "completedAt",  -- timestamp(3) without time zone\n' in text
    assert 'relation "fill_in"' in run("check").stderr


def test_a_draft_quotes_names_that_sql_or_yaml_would_misread(
    run: Run, project: Path, conn: psycopg.Connection
) -> None:
    conn.execute(
        'create table public."Order Items" ("order" text, "on" date, "a""b" text, primary key ("order"))'
    )
    done = run(
        "new", "items", "--table", 'public."Order Items"', "--partition-column", "order", "--unit", "on"
    )
    assert done.returncode == OK, done.stderr
    text = (project / "items" / "queries.sql").read_text()
    assert '    "order",  -- text\n    "on",  -- date\n    "a""b"  -- text\n' in text
    (table,) = yaml.safe_load((project / "items" / "defs.yaml").read_text())["attributes"]["tables"]
    assert table == {
        "table": 'public."Order Items"', "query": "Order_Items", "unit": "on", "partition_column": "order",
    }  # fmt: skip
    assert 'relation "fill_in" does not exist' in run("check").stderr


def test_a_draft_of_a_table_without_a_key_says_so(run: Run, project: Path, conn: psycopg.Connection) -> None:
    conn.execute("create table public.log (at timestamptz)")
    assert run("new", "log", "--table", "public.log").returncode == OK
    assert "-- The table has no key" in (project / "log" / "queries.sql").read_text()


def test_the_first_draft_of_a_project_creates_its_folder_and_none_is_written_elsewhere(
    run: Run, project: Path, conn: psycopg.Connection
) -> None:
    conn.execute(MONTHS)
    project.rmdir()
    done = run("new", "months", "--table", "attendance.member_months", folder=project.parent)
    assert done.returncode == OK, done.stderr
    assert (project / "months" / "defs.yaml").is_file()
    (project.parents[2] / "pyproject.toml").unlink()
    lost = run("new", "years", "--table", "attendance.member_months")
    assert lost.returncode == USAGE
    assert (
        f"{project} is not in a Dagster project" in lost.stderr
        and "Change to your project's folder" in lost.stderr
    )
    assert not (OURS / "years").exists()


def test_an_unknown_table_is_named_with_the_closest_match(run: Run, conn: psycopg.Connection) -> None:
    conn.execute(MONTHS)
    done = run("new", "months", "--table", "attendance.member_month")
    assert done.returncode == USAGE
    assert "Did you mean attendance.member_months" in done.stderr
    assert "is not a valid backfill name" in run("new", "a b", "--table", "x.y").stderr


def test_triggers_are_printed_applied_found_and_removed(
    run: Run, project: Path, conn: psycopg.Connection
) -> None:
    conn.execute(GYM + MONTHS)
    copied(project, "member_months")
    before = catalog(conn, "public", "backfill")
    printed = run("triggers", "member_months")
    assert printed.returncode == OK, printed.stderr
    assert printed.stdout.count("create or replace trigger") == 8
    assert catalog(conn, "public", "backfill") == before
    assert "triggers are missing on public.members, public.member_activities" in run("check").stderr
    assert run("triggers", "member_months", "--apply").returncode == OK
    assert run("check").stderr == "member_months: ok\n"
    applied = catalog(conn, "public", "backfill")
    assert run("triggers", "member_months", "--remove").returncode == OK
    assert catalog(conn, "public", "backfill") == before
    conn.execute(printed.stdout)  # the printed statements are the applied ones
    assert catalog(conn, "public", "backfill") == applied


def test_a_check_names_each_backfill_and_fails_for_one_with_a_mistake(
    run: Run, project: Path, conn: psycopg.Connection
) -> None:
    conn.execute(GYM + MONTHS)
    copied(project, "kintell_users", ("0 3 * * *", "0 3 * *"))
    copied(project, "member_months", ("count(*) as visits", "count(*) as vists"))
    done = run("check")
    assert done.returncode == USAGE
    assert (
        f"kintell_users: {project}/kintell_users/defs.yaml: Dagster rejects it: Found invalid" in done.stderr
    )
    assert "member_months: " in done.stderr and "BetaWarning" not in done.stderr
    assert "has no column 'vists'" in done.stderr
    assert "Did you mean member_months" in run("triggers", "member_mouths").stderr


def test_a_list_and_a_status_say_when_the_sources_were_polled(
    run: Run, project: Path, conn: psycopg.Connection
) -> None:
    conn.execute(GYM + MONTHS)
    copied(project, "member_months", ("  schedule", "  stale_by: polling\n  schedule"))
    never = "member_months: its source tables have not been polled yet, so their changes are not shown.\n"
    assert run("list").stderr == never
    assert run("status", "member_months").stderr.endswith(never)
    conn.execute(
        "insert into backfill.source_positions (backfill, source, position, polled_at) values"
        " ('member_months', 'public.members', '1', '2026-01-02 03:04:05+00'),"
        " ('member_months', 'public.member_activities', '1', '2026-01-02 03:05:00+00')"
    )
    remark = "its source tables were last polled at 2026-01-02 03:04:05 UTC; later changes are not shown"
    assert run("list").stderr == f"member_months: {remark}.\n"
    assert json.loads(run("list", "--json").stdout)[0]["remark"] == remark


def test_a_check_names_former_partitions_that_have_rows(
    run: Run, project: Path, conn: psycopg.Connection
) -> None:
    conn.execute(GYM + MONTHS)
    copied(project, "member_months", ("  stale_when:", "  sources: [public.members]\n  #"))
    gym = "00000000-0000-0000-0000-000000000009"
    conn.execute("insert into backfill.runs values ('r', '', 'r', '{}', 1)")
    conn.execute(
        "insert into backfill.batches (batch_id, asset, run_id, partitions, snapshot, seconds)"
        " values (gen_random_uuid(), 'attendance/member_months', 'r', array[%s, 'x'], pg_current_snapshot(), 0)",
        [gym],
    )
    assert run("check").stderr == "member_months: ok\n"
    conn.execute(
        "insert into attendance.member_months (gym_id, member_id, month, visits)"
        " values (%s, gen_random_uuid(), now(), 1)",
        [gym],
    )
    assert run("check").stderr == (
        f"member_months: ok\nmember_months: 1 former partition with rows that no run will change: {gym}\n"
    )


def test_the_list_shows_below_the_table_why_a_backfill_cannot_be_read(
    run: Run, project: Path, conn: psycopg.Connection, database_url: str
) -> None:
    copied(project, "member_months", ("schedule", "nowhere: 1\n  schedule"))
    assert "\tproblem\n" in run("list").stdout
    environment = os.environ | {"DATABASE_URL": database_url}
    code, shown = on_a_terminal(80, SCRIPT, "list", env=environment, cwd=project)
    assert code == 0
    assert [line for line in shown.splitlines() if line.startswith("member_months: ") and "nowhere" in line]
    assert "problem" not in shown and "--wide" not in shown


def test_the_doctor_reports_declarations_as_check_does(
    run: Run, project: Path, conn: psycopg.Connection
) -> None:
    def found() -> list[tuple[str, str, str]]:
        findings = json.loads(run("doctor", "--json").stdout)["findings"]
        return [(f["level"], f["found"], f["advice"]) for f in findings if f["check"] == "declarations"]

    assert found() == [("ok", "There are none.", "")]
    conn.execute(GYM + MONTHS)
    copied(project, "member_months")
    [finding] = found()
    assert finding == (
        "warning",
        "member_months: triggers are missing on public.members, public.member_activities.",
        "Create them: backfills triggers member_months --apply",
    )
    run("triggers", "member_months", "--apply")
    assert found() == [("ok", "Valid: member_months.", "")]
    copied(project, "kintell_users")  # on tables that do not exist
    [(level, message, _)] = found()
    assert level == "error" and message.startswith("kintell_users: ") and "queries.sql, line 1: " in message


VISITED = (
    "select count(distinct (member_id, date_trunc('month', activity_date))) from public.member_activities"
)
DEFINITIONS = """
from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


@pytest.mark.timeout(600)
@pytest.mark.e2e
def test_all_verbs_work_on_a_declared_backfill(run: Run, project: Path, conn: psycopg.Connection) -> None:
    conn.execute(GYM + MONTHS)
    copied(project, "member_months")
    (project.parent / "definitions.py").write_text(DEFINITIONS)
    (project.parent / "__init__.py").write_text("")
    root = project.parent.parent.parent
    (root / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "ours"\n'
    )
    (backfill,) = json.loads(run("list", "--json").stdout)
    assert (backfill["backfill"], backfill["units"]) == ("member_months", backfill["missing"])
    assert run("plan", "member", "--which", "all", "--fail-on-changes").returncode == 1
    done = run("run", "member", "--yes", "--json")
    assert done.returncode == OK, done.stderr
    assert [table["inserted"] for table in json.loads(done.stdout)["tables"]] == [
        conn.execute(VISITED).fetchone()[0]
    ]
    assert {each["state"] for each in json.loads(run("status", "member_months", "--json").stdout)} == {
        "up to date"
    }
    assert "paused" in run("pause", "member_months").stderr
    assert "not paused" in run("resume", "member_months").stderr
    assert "member_months has no failures." in run("failures", "member_months").stderr
    undone = run("undo", "member_months", "--yes", "--json")
    assert undone.returncode == OK, undone.stderr
    assert conn.execute("select count(*) from attendance.member_months").fetchone() == (0,)
    assert "There is no backfill 'scoring'" in run("status", "scoring").stderr


def test_a_run_in_the_database_that_a_declaration_names_is_found_by_its_id(
    project: Path, database_url: str, make_database: Callable[[], str]
) -> None:
    other = make_database()
    copied(project, "member_months", ("attributes:\n", "attributes:\n  database: REPORTING_URL\n"))
    with psycopg.connect(other, autocommit=True) as reporting:
        reporting.execute(GYM + MONTHS)
        with adopter(load(project / "member_months"), other) as a:
            run_id = a.refresh("all").run_id
        environment = {"DATABASE_URL": database_url, "REPORTING_URL": other, "PATH": "", "HOME": str(project)}
        done = program([SCRIPT, "undo", run_id[:12], "--yes"], cwd=project, env=environment)
        assert done.returncode == OK, done.stderr
        assert reporting.execute("select count(*) from attendance.member_months").fetchone() == (0,)


def test_a_declared_backfill_may_have_the_name_of_a_builtin_one(
    run: Run, project: Path, conn: psycopg.Connection
) -> None:
    conn.execute(GYM + MONTHS)
    copied(project, "member_months").rename(project / "queue")
    assert "queue has no failures." in run("failures", "queue").stderr
    assert "queue: not paused, waits 2 s between batches" in run("throttle", "queue", "--rest", "2").stderr
    assert [each["missing"] for each in json.loads(run("status", "queue", "--json").stdout)] == [True, True]
