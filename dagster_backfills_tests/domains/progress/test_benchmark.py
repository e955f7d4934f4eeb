"""The benchmark at a small size: its run and the bare SQL give the same rows, and it prints its figures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(600)
@pytest.mark.e2e
def test_the_benchmark_compares_a_run_with_bare_sql_and_prints_its_figures_as_json(project_root: Path):
    sizes = ["--cohorts", "12", "--users", "200", "--progress", "2000", "--memory", "4000", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.progress", *sizes],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert set(figures) == {
        "seconds_sql",
        "seconds_step",
        "seconds_process",
        "ratio_to_sql",
        "ratio_to_sql_unjournaled",
        "ratio_unchanged",
        "one_cohort_ms",
        "peak_mb_2k",
        "peak_mb_4k",
    }
    assert all(value > 0 for value in figures.values())
