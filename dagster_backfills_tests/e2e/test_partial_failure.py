"""A backfill of which two partitions fail, launched and retried through GraphQL on a real webserver and daemon."""

import json
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from benchmarks.backfills import Backfills, wait_until
from benchmarks.servers import dagster_servers

MODULE = "dagster_backfills_tests.e2e.reporting_location"
ASSET = "reported/stats"
KEYS = [f"cohort {n:02}, the 100%" for n in range(20)]
BAD = {KEYS[3], KEYS[15]}


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_only_the_failed_partitions_are_shown_as_failed_and_only_those_are_retried(
    make_database: Callable[..., str], tmp_path: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = tmp_path / "failing.json"
    failing.write_text(json.dumps(sorted(BAD)))
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((project_root / "dagster.yaml").read_text())
    environment = {
        "DAGSTER_POSTGRES_URL": make_database(migrated=False),
        "FAILING_COHORTS": str(failing),
    }
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", environment["DAGSTER_POSTGRES_URL"])
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions("reported_cohorts", KEYS)

    with dagster_servers(
        home, MODULE, environment, working_directory=project_root, backfill_interval=2
    ) as webserver:
        ui = Backfills(webserver)
        first = ui.launch([ASSET], KEYS)
        wait_until(lambda: _is_over(ui, first), "the backfill", seconds=180)

        assert ui.status(first) == {"status": "COMPLETED_FAILED", "assets": {ASSET: (20, 18, 2)}}
        assert [run["status"] for run in ui.runs_of(first)] == ["FAILURE"]
        states = ui.states(ASSET)
        assert states["failed"] == BAD
        assert states["materialized"] == set(KEYS) - BAD
        assert not states["materializing"]

        repair = ui.launch_job("repair", MODULE, {"ops": {"recompute": {"config": {"keys": KEYS[::5]}}}})
        wait_until(lambda: ui.run(repair)["endTime"] is not None, "the repair", seconds=120)
        assert ui.run(repair)["status"] == "FAILURE"  # the sixteenth key is among them and still bad
        assert ui.states(ASSET)["failed"] == BAD

        failing.write_text("[]")
        again = ui.retry_failed(first)
        wait_until(lambda: _is_over(ui, again), "the retry", seconds=180)

        assert ui.status(again) == {"status": "COMPLETED_SUCCESS", "assets": {ASSET: (2, 2, 0)}}
        retried = [run["tags"]["dagster/asset_partition_range_start"] for run in ui.runs_of(again)]
        assert sorted(retried) == sorted(BAD)
        assert ui.counts(ASSET).failed == 0
        assert ui.states(ASSET)["materialized"] == set(KEYS)


def _is_over(ui: Backfills, backfill_id: str) -> bool:
    return str(ui.status(backfill_id)["status"]).startswith("COMPLETED")
