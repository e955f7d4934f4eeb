"""The benchmark at a small size: it prints its results, and always stops its server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [
    sys.executable,
    "-m",
    "benchmarks.scoring",
    "--members",
    "200",
    "--days",
    "2",
    "--year-members",
    "50",
]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_the_benchmark_prints_its_figures_as_json(project_root: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        COMMAND, cwd=project_root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["members"] == 200 and figures["year_days"] == 2
    assert all(value > 0 for value in figures.values())
    assert list(tmp_path.glob("bench-scoring-*")) == []


def test_if_its_output_is_closed_the_benchmark_ends_and_leaves_no_server(
    project_root: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    with subprocess.Popen(
        COMMAND,
        cwd=project_root,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        message = process.stderr.read()
    assert process.returncode != 0 and "BrokenPipeError" in message
    assert list(tmp_path.glob("bench-scoring-*")) == []
