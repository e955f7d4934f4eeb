"""A whole chain from speech to an SOP and a Mux upload, with sensor and daemon, controlled through the database."""

import shutil
import subprocess
import time

import psycopg
import pytest
from psycopg.types.json import Jsonb

from benchmarks.servers import dagster_servers
from dagster_backfills.domains.queue import queue
from dagster_backfills_tests.conftest import new_database
from dagster_backfills_tests.domains.queue.runs import PARTS
from dagster_backfills_tests.domains.queue.stand_ins import Mux, StandIn, serving
from dagster_backfills_tests.domains.queue.test_engines import needs_espeak
from dagster_backfills_tests.e2e.conftest import instance_environment
from dagster_backfills_tests.e2e.graphql import wait_for
from dagster_backfills_tests.haste import HASTE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

OBSERVATIONS = """
query Observations { assetOrError(assetKey: {path: ["jobs", "background_jobs"]}) { ... on Asset {
  assetObservations(limit: 50) { metadataEntries { label ... on TextMetadataEntry { text } } } } } }
"""


def _speak(path, text):
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "150", "-w", str(path), text], check=True)


@needs_espeak
def test_a_whole_chain_on_real_speech(server_url, template, project_root, tmp_path):
    home, media = tmp_path / "dagster_home", tmp_path / "media"
    home.mkdir()
    media.mkdir()
    shutil.copy(project_root / "dagster.yaml", home)
    _speak(media / "training.wav", " ".join(PARTS))
    (media / "training.mp4").write_bytes(b"film " * 1000)
    with new_database(server_url, template) as url, serving(StandIn(Mux)) as mux:
        environment = instance_environment(url, home) | {
            "JOBS_MEDIA_FOLDERS": str(media),
            "MUX_BASE_URL": mux.url,
            "MUX_TOKEN_ID": "the-id",
            "MUX_TOKEN_SECRET": "the-secret-token",
            "JOBS_MUX_POLL_SECONDS": "0.2",
            "OPENAI_API_KEY": "",
        }
        # Any application can do this: one SQL statement.
        steps = [
            {"job_type": "sop_generation", "input_data": {"title": "Boiler room"}},
            {"job_type": "mux_upload", "input_data": {"video_url": (media / "training.mp4").as_uri()}},
        ]
        with psycopg.connect(url, autocommit=True) as conn:
            row = conn.execute(
                "select jobs.enqueue_background_job('transcription', %s, then_steps => %s)",
                [Jsonb({"audio_url": (media / "training.wav").as_uri()}), Jsonb(steps)],
            ).fetchone()
            with dagster_servers(
                home,
                "dagster_backfills.definitions",
                environment,
                working_directory=project_root,
                haste=HASTE,
            ) as webserver:
                jobs = _wait_for_the_chain(conn)
                expected = {("job_id", str(j["id"])) for j in jobs}
                # The run records what a job made just after the job is completed.
                wait_for("what the jobs made", lambda: expected <= _observed(webserver))
        assert [j["job_type"] for j in jobs] == ["transcription", "sop_generation", "mux_upload"]
        assert jobs[0]["id"] == row[0] and [j["parent_id"] for j in jobs] == [None, row[0], jobs[1]["id"]]
        _assert_results(*(j["output_data"] for j in jobs))
        assert mux.film == b"film " * 1000


def _observed(webserver):
    seen = webserver.ask(OBSERVATIONS)["assetOrError"]["assetObservations"]
    return {(e["label"], e.get("text")) for o in seen for e in o["metadataEntries"]}


def _wait_for_the_chain(conn):
    deadline = time.monotonic() + 400
    while True:
        ids = conn.execute("select id from jobs.background_jobs order by created_at").fetchall()
        jobs = [queue.rows(conn, "one_job", job_id=i[0])[0] for i in ids]
        assert not [j["error_data"] for j in jobs if j["status"] == "failed"]
        if len(jobs) == 3 and all(j["status"] == "completed" for j in jobs):
            return jobs
        assert time.monotonic() < deadline, [(j["job_type"], j["status"]) for j in jobs]
        time.sleep(0.5)


def _assert_results(transcription, procedure, film):
    heard = transcription["transcript"].lower()
    for word in ("gauge", "pressure", "alarm", "building", "supervisor"):
        assert word in heard
    assert transcription["segments"] and transcription["duration"] > 20
    assert procedure["title"] == "Boiler room" and 5 <= len(procedure["key_points"]) <= 7
    assert all(0 <= c["start"] < c["end"] <= transcription["duration"] for c in procedure["chapters"])
    assert len(procedure["chapters"]) > 1 and "1. " in procedure["sop_markdown"]
    assert (film["asset_id"], film["playback_id"], film["status"]) == ("asset1", "play1", "ready")
