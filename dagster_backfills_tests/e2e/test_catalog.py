"""Dagster's UI after the demo, read through its GraphQL API.

With `BACKFILLS_SCREENSHOTS=<folder>`, it takes pictures for the docs (`make screenshots`).
"""

import json
import os
import shutil
import urllib.error
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from dagster_backfills.instance.dagster_home import first_days
from dagster_backfills_tests.e2e.conftest import Stack, StackFactory
from dagster_backfills_tests.e2e.graphql import LOCATION, REPOSITORY, runs, wait_for
from dagster_backfills_tests.programs import SCRIPT, run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

_ASSETS = """{ assetNodes { assetKey { path } description kinds isMaterializable opVersion
  owners { ... on TeamAssetOwner { team } } dependencyKeys { path } dependedByKeys { path }
  targetingInstigators { ... on Sensor { name } ... on Schedule { name } }
  partitionStats { numMaterialized numPartitions numFailed }
  internalFreshnessPolicy { __typename }
  metadataEntries { label
    ... on TableSchemaMetadataEntry { schema { columns { name description } } }
    ... on TableColumnLineageMetadataEntry { lineage { columnName } } }
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization {
    status evaluation { success severity description metadataEntries { label __typename } } } } } } } }"""
_DAYS = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  assetChecksOrError { ... on AssetChecks { checks { name partitionStatuses { __typename
    ... on AssetCheckTimePartitionStatuses { ranges { status startKey endKey } } } } } } } } }"""
_POOLS = "{ instance { concurrencyLimits { concurrencyKey } } }"
_LAUNCH = """mutation($run: ExecutionParams!) { launchRun(executionParams: $run) { __typename
  ... on PythonError { message causes { message } } } }"""
_PICTURES = {
    "ui-lineage": "/asset-groups?expanded=global@global:backfill",
    "ui-lineage-scoring": f"/locations/{LOCATION}/asset-groups/scoring/lineage",
    "ui-lineage-kintell": f"/locations/{LOCATION}/asset-groups/kintell/lineage",
    "ui-asset": "/assets/progress/cohort_stats?view=overview",
    "ui-checks": "/assets/scoring/commitment_scores?view=checks&checkDetail=every_active_member_has_a_score",
    "ui-timeline": "/overview/activity/timeline",
}
# External assets without rows in Postgres.
_NO_TABLES = {"kintell/inbox", "kintell/event_stream"}


@pytest.fixture(scope="module")
def demo(start_stack: StackFactory) -> Iterator[Stack]:
    """A database after running `backfills demo` twice: the demo can be repeated."""
    variables: dict[str, str] = {}

    def fill(conn: psycopg.Connection) -> None:
        url = conn.info.dsn
        for _ in range(2):
            done = run([SCRIPT, "demo"], env=os.environ | {"DATABASE_URL": url})
            assert done.returncode == 0, done.stderr
        variables.update(first_days(url))

    with start_stack(fill=fill, variables=variables, migrated=False) as started:
        yield started


@pytest.fixture(scope="module")
def assets(demo: Stack) -> dict[str, dict[str, Any]]:
    nodes = demo.webserver.ask(_ASSETS)["assetNodes"]
    return {"/".join(node["assetKey"]["path"]): node for node in nodes}


def test_the_demo_has_loaded_and_backfilled_every_domain(demo: Stack) -> None:
    done = run([SCRIPT, "status", "--json"], env=os.environ | demo.environment)
    overview = {each["backfill"]: each for each in json.loads(done.stdout)["backfills"]}
    written = ("kintell", "progress_stats", "scoring", "training_completions")
    assert set(overview) == {"queue", *written}
    assert all(overview[domain]["up_to_date"] > 0 for domain in written if domain != "scoring")
    assert overview["scoring"]["failed"] == 7  # two members can't be scored
    assert all(overview[domain]["missing"] == 0 for domain in ("progress_stats", "training_completions"))
    with demo.connect() as conn:
        students = "select sum(students) > 1000, bool_or(needs_backfill) from progress.cohort_status"
        assert conn.execute(students).fetchone() == (True, False)
        counts = "select total_rows, inserted_rows, failed_rows from kintell.backfill_jobs"
        assert conn.execute(counts).fetchall() == [(600, 585, 15)]


def test_every_asset_has_a_description_owners_and_automation(
    assets: dict[str, dict[str, Any]],
) -> None:
    assert len(assets) > 50
    for key, node in assets.items():
        labels = {entry["label"]: entry for entry in node["metadataEntries"]}
        assert node["description"], key
        assert node["owners"] and node["kinds"], key
        assert node["dependencyKeys"] or node["dependedByKeys"] or key == "operations/job_runs", key
        assert node["targetingInstigators"] or "view" in node["kinds"], key
        if key not in _NO_TABLES:
            assert labels["dagster/table_name"], key
            assert labels["dagster/column_schema"]["schema"]["columns"], key
        if node["isMaterializable"]:
            assert node["opVersion"] and "dagster/code_references" in labels, key


def test_columns_have_the_databases_comments_and_their_lineage(
    assets: dict[str, dict[str, Any]],
) -> None:
    entries = {each["label"]: each for each in assets["progress/cohort_stats"]["metadataEntries"]}
    columns = {
        column["name"]: column["description"]
        for column in entries["dagster/column_schema"]["schema"]["columns"]
    }
    assert columns["total_students"] == "Active students."
    lineage = {each["columnName"] for each in entries["dagster/column_lineage"]["lineage"]}
    assert "average_completion" in lineage
    promised = {key for key, node in assets.items() if node["internalFreshnessPolicy"]}
    assert promised == {
        "operations/job_runs",
        "progress/cohort_stats",
        "progress/user_progress_stats",
        "scoring/churn_risk_scores",
        "scoring/coach_actions",
        "scoring/commitment_scores",
    }


def test_the_lineage_connects_files_with_the_stream_and_visits_with_actions(
    assets: dict[str, dict[str, Any]],
) -> None:
    def upstream(key: str) -> set[str]:
        above = {"/".join(each["path"]) for each in assets[key]["dependencyKeys"]}
        return above.union(*map(upstream, above))

    assert {"kintell/inbox", "kintell/kintell_sessions", "kintell/event_outbox"} <= upstream(
        "kintell/event_stream"
    )
    assert {"scoring/visits", "scoring/commitment_scores", "scoring/churn_risk_scores"} <= upstream(
        "scoring/coach_actions"
    )
    assert "scoring/commitment_scores" in upstream("scoring/member_scores")
    assert {"jobs/background_jobs", "jobs/job_types"} <= upstream("jobs/my_jobs")
    assert {"progress/user_progress", "progress/cohort_stats"} <= upstream("progress/cohort_dashboard")


def _verdicts(demo: Stack) -> dict[tuple[str, str], dict[str, Any]]:
    """The evaluations by asset and check; empty while one of them is being re-evaluated."""
    found = {
        ("/".join(node["assetKey"]["path"]), check["name"]): check["executionForLatestMaterialization"]
        for node in demo.webserver.ask(_ASSETS)["assetNodes"]
        for check in node["assetChecksOrError"].get("checks", ())
    }
    assert [name for name, execution in found.items() if execution is None] == []
    evaluations = {name: execution["evaluation"] for name, execution in found.items()}
    return evaluations if all(evaluations.values()) else {}


def test_every_check_has_a_result_and_a_warning_names_units_reason_and_run(demo: Stack) -> None:
    verdicts = wait_for("the checks' verdicts", lambda: _verdicts(demo))
    assert len(verdicts) == 20
    bad = {name: found for name, found in verdicts.items() if not found["success"]}
    assert {(name, found["severity"]) for (_, name), found in bad.items()} == {
        ("every_active_member_has_a_score", "WARN"),
        ("coach_coverage", "WARN"),
    }
    unscored = bad["scoring/commitment_scores", "every_active_member_has_a_score"]
    assert "mem_000001 (" in unscored["description"]
    assert "expected_visits_per_week must be 0 or more" in unscored["description"]
    assert "PipelineRunMetadataEntry" in {entry["__typename"] for entry in unscored["metadataEntries"]}


def test_a_check_of_days_is_shown_day_by_day(demo: Stack) -> None:
    key = {"path": ["scoring", "commitment_scores"]}
    node = demo.webserver.ask(_DAYS, key=key)["assetNodeOrError"]
    checks = {each["name"]: each for each in node["assetChecksOrError"]["checks"]}
    ranges = checks["scores_in_range"]["partitionStatuses"]["ranges"]
    assert [each["status"] for each in ranges if each["status"] == "SUCCEEDED"]
    failed = checks["every_active_member_has_a_score"]["partitionStatuses"]["ranges"]
    assert [each["status"] for each in failed if each["status"] == "FAILED"]


def test_partition_bars_begin_with_the_data_and_runs_show_no_path(
    demo: Stack, assets: dict[str, dict[str, Any]]
) -> None:
    bars = {key: node["partitionStats"] for key, node in assets.items() if node["partitionStats"]}
    for key, bar in bars.items():
        assert bar["numMaterialized"] / bar["numPartitions"] > 0.01, key
        assert bar["numFailed"] == 0
        if key.startswith(("progress/", "training/")):
            assert bar["numMaterialized"] == bar["numPartitions"], key
    with demo.connect() as conn:
        assert conn.execute(
            "select count(*) from jobs.background_jobs where status = 'completed'"
        ).fetchone() == (3,)
        assert conn.execute("select count(distinct day) from scoring.coach_actions").fetchone() == (7,)
    done = runs(demo.webserver)
    assert {"observe_sources", "report_job_history"} <= {run["jobName"] for run in done}
    assert [run for run in done if run["status"] == "FAILURE"] == []
    assert not [tag for run in done for tag in run["tags"] if tag["value"].startswith("/")]
    pools = demo.webserver.ask(_POOLS)["instance"]["concurrencyLimits"]
    assert {pool["concurrencyKey"] for pool in pools} == {"operations.job_runs"}


@pytest.mark.parametrize(
    ("job", "config", "output"),
    [
        ("import_kintell_sessions", "{}", "set either `file`"),
        ("import_kintell_sessions", '{"file": "a.csv", "batch_rows": 0}', "batch_rows"),
        (
            "refresh_progress_stats",
            '{"which": "named"}',
            "set `partitions` if and only if `which` is `named`",
        ),
        ("control_training_completions", '{"rest_seconds": -1}', "rest_seconds"),
    ],
)
def test_invalid_launchpad_configuration_is_rejected_before_the_launch(
    demo: Stack, job: str, config: str, output: str
) -> None:
    selector = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "jobName": job}
    before = len(runs(demo.webserver))
    with pytest.raises(urllib.error.HTTPError) as refused:
        demo.webserver.ask(_LAUNCH, run={"selector": selector, "runConfigData": config})
    assert output in refused.value.read().decode().replace('\\"', '"')
    assert len(runs(demo.webserver)) == before


@pytest.mark.skipif(
    "BACKFILLS_SCREENSHOTS" not in os.environ, reason="pictures are taken by make screenshots"
)
def test_pictures_of_the_catalog(demo: Stack) -> None:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        # Chromium's sandbox needs rights that containers lack. It only opens this machine's own pages.
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        page = browser.new_page()
        for name, address in _PICTURES.items():
            page.set_viewport_size({"width": 1600, "height": 1300 if "-lineage-" in name else 1000})
            page.goto(f"{demo.webserver.url}{address}")
            page.wait_for_timeout(15_000)  # every node of a lineage loads its own state
            page.screenshot(path=f"{os.environ['BACKFILLS_SCREENSHOTS']}/{name}.png")
        browser.close()
