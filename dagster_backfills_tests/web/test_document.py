"""The how-to on applications: its commands and clients, run against the real server."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagster_backfills_tests.domains.kintell.sample import mixed_rows, write_csv
from dagster_backfills_tests.web.conftest import SECRETS, work_off_runs
from dagster_backfills_tests.web.serving import Server, serving, wait_for

DOCUMENT = "docs/how-to/from-your-application.md"
pytestmark = pytest.mark.e2e


@pytest.fixture
def server(place: Path) -> Iterator[Server]:
    with serving(place) as made:
        yield made


def blocks(project_root: Path, language: str) -> list[str]:
    text = (project_root / DOCUMENT).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def environment(server: Server) -> dict[str, str]:
    return {**os.environ, "BACKFILLS": server.address} | {
        f"{scope.upper()}_TOKEN": secret for scope, secret in SECRETS.items()
    } | {"CRON_SECRET": SECRETS["cron"]}  # fmt: skip


def test_the_commands_of_the_how_to_do_what_it_says(server, place, project_root, conn):
    write_csv(place / "sessions.csv", mixed_rows(30))
    conn.execute("insert into training.organizations values ('org_1', 'One')")
    [script] = blocks(project_root, "sh")
    for number, command in enumerate(script.split("\n\n")):
        # Each runs in its own shell, with the variables that the earlier ones have set.
        text = f". ./state\n{command}\ndeclare -p JOB UPLOAD AT SIZE RUN >state 2>/dev/null || true"
        (place / "state").touch()
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", text],
            cwd=place,
            env=environment(server),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{number}: {command}\n{done.stdout}{done.stderr}"
        if "cron" not in command:
            work_off_runs()


@pytest.mark.parametrize("language", ["python", "js"])
def test_the_clients_of_the_how_to_enqueue_a_job_and_follow_it(server, place, project_root, language, conn):
    program = {"python": sys.executable, "js": shutil.which("node")}[language]
    if program is None:
        pytest.skip("Node is not installed.")
    [text] = blocks(project_root, language)
    file = place / f"client.{'mjs' if language == 'js' else 'py'}"
    file.write_text(text)
    client = subprocess.Popen(
        [program, str(file)],
        env=environment(server),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: conn.execute("select 1 from jobs.background_jobs").fetchone())
    with server.client("jobs") as http:
        http.post("/api/jobs/process")
    work_off_runs()
    out, errors = client.communicate(timeout=60)
    assert client.returncode == 0, errors
    lines = out.splitlines()
    assert lines[0].startswith("pending"), out
    assert lines[-1].startswith("completed 100"), out
