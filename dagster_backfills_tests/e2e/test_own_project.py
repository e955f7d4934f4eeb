"""The wheel in a user's Dagster project, with Dagster's default storage and launcher, and the how-tos on it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from benchmarks.servers import Webserver
from dagster_backfills_tests.components.adopting import EXAMPLES, query
from dagster_backfills_tests.components.applications import COMPLIANCE, GYM, MONTHS
from dagster_backfills_tests.e2e.graphql import wait_for
from dagster_backfills_tests.e2e.own_project import OwnProject, make_environment, make_project
from dagster_backfills_tests.e2e.pages import Reader

ALPHA = "a0000000-0000-0000-0000-000000000000"
MONTHS_OF = "select gym_id::text, month::text, visits from attendance.member_months order by 1, 2"
_ADD = """mutation($key: String!, $repository: RepositorySelector!) { addDynamicPartition(
  partitionKey: $key, partitionsDefName: "member_months", repositorySelector: $repository) { __typename } }"""
_LAUNCH = """mutation($run: ExecutionParams!) { launchRun(executionParams: $run) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
_STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
_HERE = {"repositoryLocationName": "ours.definitions", "repositoryName": "__repository__"}
# The project's environment already contains the built wheel and the project. The first `check` reports what must still
# be filled in.
READER = Reader(
    instead={"pip install dagster-backfills": lambda: "", "pip install --editable .": lambda: ""},
    ends={"backfills check": None, "backfills check member_months": 2},
)
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """A virtual environment with the built wheel, to copy."""
    return make_environment(tmp_path_factory.mktemp("adopter"), project_root)


@pytest.fixture
def project(tmp_path: Path, environment: Path, make_database: Callable[..., str]) -> Iterator[OwnProject]:
    with make_project(tmp_path, environment, make_database(migrated=False)) as made:
        yield made


def materialize(ui: Webserver, gym: str) -> str:
    """Launch a run of one partition like the dialog. Returns its final status."""
    ui.ask(_ADD, key=gym, repository=_HERE)  # the sensor may have launched it already
    selection = [{"path": ["attendance", "member_months"]}]
    run = {
        "selector": {**_HERE, "jobName": "__ASSET_JOB", "assetSelection": selection},
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": gym}]},
    }
    answer = ui.ask(_LAUNCH, run=run)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    ended = {"SUCCESS", "FAILURE", "CANCELED"}
    return wait_for(
        "the run",
        lambda: ({ui.ask(_STATUS, id=answer["run"]["runId"])["runOrError"]["status"]} & ended or {""}).pop(),
        240,
    )


def test_a_declaration_is_scaffolded_and_materialized_in_a_users_own_project(project: OwnProject) -> None:
    project.run(
        "dg", "scaffold", "defs", "dagster_backfills.PostgresBackfill", "member_months", "--table",
        "attendance.member_months", "--partition-column", "gym_id", "--unit", "member_id",
    )  # fmt: skip
    project.run("backfills", "migrate")
    for name in ("defs.yaml", "queries.sql"):  # the placeholders to fill in
        (project.defs / "member_months" / name).write_text((EXAMPLES / "member_months" / name).read_text())
    output = project.run("python", "-c", "import polars", expect=1)
    assert "No module named 'polars'" in output
    for command in (
        ["kintell", "missing-users", "sessions.csv"],
        ["demo"],
    ):  # names the missing extra, and does nothing
        assert "needs libraries that are not installed (" in project.run("backfills", *command, expect=3)
    project.run("dg", "check", "yaml")
    with psycopg.connect(project.database_url, autocommit=True) as conn:
        made = query(
            conn, "select nspname from pg_namespace where nspname !~ '^pg_|^information|^public' order by 1"
        )
        assert made == ["backfill"]
        conn.execute(GYM + MONTHS)
        assert "ok, but triggers are missing" in project.run("backfills", "check")
        with project.servers() as ui:
            planned = project.run("backfills", "plan", "member_months", "--which", "all", "--json")
            assert '"changes": 3' in planned
            assert "nothing is known" not in project.run("backfills", "status", "--no-ticks")
            assert materialize(ui, ALPHA) == "SUCCESS"
            assert {(ALPHA, "2026-01-01", 2), (ALPHA, "2026-02-01", 1)} <= set(query(conn, MONTHS_OF))
        project.run("dg", "launch", "--assets", "attendance/member_months", "--partition", ALPHA)
        newest = (
            "select rows_inserted, rows_unchanged from backfill.batches order by committed_at desc limit 1"
        )
        assert query(conn, newest) == [(0, 2)]


def test_the_page_on_your_own_backfill_works(project: OwnProject, project_root: Path) -> None:
    done = list(READER.follow(project_root / "docs" / "how-to" / "your-own-backfill.md", project))
    assert len(done) == 16


def test_the_page_on_your_own_tables_works(project: OwnProject, project_root: Path) -> None:
    project.run("backfills", "migrate")
    with psycopg.connect(project.database_url, autocommit=True) as conn:
        conn.execute(COMPLIANCE)
    done = list(READER.follow(project_root / "docs" / "how-to" / "your-own-tables.md", project))
    assert len(done) == 7
    project.run("dg", "check", "defs")
    for name in ("defs.yaml", "queries.sql"):
        shown = (project.defs / "training_completions" / name).read_text()
        assert (EXAMPLES / "training_completions" / name).read_text().endswith(shown)
