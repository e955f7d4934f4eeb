"""The benchmark of wide backfills, small: it checks every state it measures, on the project's own location."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_a_wide_backfill_fails_where_it_must_and_only_there_and_is_mended_by_its_retry(
    project_root: Path,
) -> None:
    command = [sys.executable, "-m", "benchmarks.partitions", "--partitions", "60", "--some", "12"]
    run = subprocess.run(
        [*command, "--no-default", "--backfill-interval", "2"],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    figures = json.loads(run.stdout.splitlines()[-1])
    assert (figures["partitions"], figures["some"]) == (60, 12)
    assert {"seconds_10k", "seconds_retry", "seconds_1k_scattered", "seconds_1k"} <= set(figures)
