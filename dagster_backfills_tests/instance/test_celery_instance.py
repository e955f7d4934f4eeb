"""The instance's settings for Celery are derived from the project's own."""

import subprocess
import sys

import pytest
import yaml

pytestmark = pytest.mark.programs


def test_only_the_run_launcher_differs(project_root):
    script = [sys.executable, str(project_root / "deploy" / "celery" / "instance.py")]
    made = yaml.safe_load(subprocess.run(script, capture_output=True, text=True, check=True).stdout)
    stock = yaml.safe_load((project_root / "dagster.yaml").read_text())
    assert made["run_launcher"] == {
        "module": "dagster_backfills.instance.celery.launcher",
        "class": "WatchedCeleryRunLauncher",
    }
    assert made["concurrency"]["runs"]["max_concurrent_runs"] == 32
    assert [limit["limit"] for limit in made["concurrency"]["runs"]["tag_concurrency_limits"]] == [24, 4]
    for settings in (made, stock):
        del settings["run_launcher"], settings["concurrency"]["runs"]
    assert made == stock
