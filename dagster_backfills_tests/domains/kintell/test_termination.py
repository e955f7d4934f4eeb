"""A run that is terminated, as the UI's button does it: by an interrupt to the process of the run."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills_tests.domains.kintell.sample import add_users, row, write_csv

ROWS = 20_000


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_a_terminated_run_leaves_its_job_paused_and_a_resume_ends_it(
    conn, database_url, tmp_path, project_root
):
    add_users(conn)
    path = write_csv(tmp_path / "a.csv", [row(i) for i in range(ROWS)])
    home = tmp_path / "dagster"
    home.mkdir()
    config = json.dumps({"file": str(path), "batch_rows": 20})
    command = ["job", "execute", "-m", "dagster_backfills.definitions", "-j", "import_kintell_sessions"]
    (tmp_path / "run.yaml").write_text(config)
    run = subprocess.Popen(
        [sys.executable, "-m", "dagster", *command, "-c", str(tmp_path / "run.yaml")],
        cwd=project_root,
        env={
            **os.environ,
            "DAGSTER_HOME": str(home),
            "DATABASE_URL": database_url,
            "KINTELL_ALLOWED_LOCATIONS": str(tmp_path),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        begun = "select exists (select from kintell.backfill_jobs where processed_rows > 0)"
        while run.poll() is None and not conn.execute(begun).fetchone()[0]:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=120)
    finally:
        run.kill()
        run.wait()
    job, status, done = conn.execute(
        "select id, status, processed_rows from kintell.backfill_jobs"
    ).fetchone()
    assert status == "paused", said[-3000:]
    assert 0 < done < ROWS
    assert run_import(database_url, job, Options(), [str(tmp_path)]).inserted_rows == ROWS
